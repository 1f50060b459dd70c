# awk -f doxygen_filter.awk HEADER: the header with hadal's plain comments turned into Doxygen's, line for line.
#
#   a block in front of a declaration      its documentation; the first sentence is the brief one
#   a comment behind a member              the member's; further lines in the same column belong to it
#   the block at the top of the file       the file's
#   lines that are indented in a comment   set as they stand (operands with their shapes)
#   hadal.h: a section's line              a group, described by the comment behind it, up to the next section
#
# In hadal.h what every kernel has alike is written once, at the head: the filter says it of each _desc, _args, _plan
# and _record, and of a member only where its section's comments name it; others stay undocumented, which is a warning.
# Comments in function bodies, in parameter lists and in front of a blank line stay as they are.

{ line[NR] = $0 }

# Text outside of verbatim lines: what Doxygen or Markdown would take for a command is escaped, but not in `code`.
function escaped(text,    parts, n, i, out) {
  n = split(text, parts, "`")
  out = ""
  for (i = 1; i <= n; ++i) {
    if (i % 2 || n % 2 == 0) {
      gsub(/[\\@#&%<>]|\*[A-Za-z0-9_(]/, "\\\\&", parts[i])
      gsub(/(^| )_/, "&\001", parts[i])
      gsub(/_\001/, "\\_", parts[i])
    }
    out = out (i > 1 ? "`" : "") parts[i]
  }
  return out
}

# Prints text[1..n] as n lines of a documentation block: `head` in front, `tail` behind.
function emit(n, head, tail,    i, verbatim, next_verbatim, out) {
  verbatim = 0
  for (i = 1; i <= n; ++i) {
    out = i == 1 ? head : ""
    if (!verbatim && text[i] ~ /^  /) {  # the first line is such a one
      out = out "@verbatim "
      verbatim = 1
    }
    out = out (verbatim ? substr(text[i], 3) : escaped(text[i]))
    next_verbatim = i < n && (text[i + 1] ~ /^  / || (text[i + 1] == "" && verbatim && text[i + 2] ~ /^  /))
    if (verbatim && !next_verbatim) out = out " @endverbatim"
    if (!verbatim && next_verbatim) out = out " @verbatim"
    verbatim = next_verbatim
    print out (i == n ? tail : "")
  }
}

function spaces(s) { match(s, /^ */); return RLENGTH }

# Keeps the stack of braces; a body is whatever a function's brace opened.
function track(code,    i, c, kind) {
  gsub(/'[{}()]'/, "", code)
  gsub(/"[^"]*"/, "", code)
  if (code ~ /(^|[^A-Za-z_])(namespace|struct|class|enum|union|extern)([^A-Za-z_]|$)/ && code !~ /\)/) kind = "scope"
  else kind = "body"
  for (i = 1; i <= length(code); ++i) {
    c = substr(code, i, 1)
    if (c == "{") { stack[++depth] = kind; if (kind == "body") ++bodies }
    if (c == "}") { if (depth && stack[depth] == "body") --bodies; if (depth) --depth }
    if (c == "(") ++parens
    if (c == ")") --parens
  }
}

# ---- C++ ----------------------------------------------------------------------------------------

function cpp_comment(s) { return s ~ /^ *\/\/( |$)/ && s !~ /NOLINT|clang-format/ }
function cpp_text(s) { sub(/^ *\/\/ ?/, "", s); return s }

function cpp(    i, j, n, at, code, column) {
  column = -1  # of the last trailing comment
  for (i = 1; i <= NR; ++i) {
    if (cpp_comment(line[i])) {
      if (spaces(line[i]) == column) {  # goes on
        print substr(line[i], 1, column) "///< " escaped(cpp_text(line[i]))
        continue
      }
      for (j = i; cpp_comment(line[j + 1]) && spaces(line[j + 1]) == spaces(line[i]); ++j) {}
      n = 0
      for (at = i; at <= j; ++at) text[++n] = cpp_text(line[at])
      text[n + 1] = text[n + 2] = ""
      if (i == 1) emit(n, "/** @fileof ", " */")
      else if (bodies || parens || line[j + 1] ~ /^ *$|^ *[}#]/) for (at = i; at <= j; ++at) print line[at]
      else emit(n, substr(line[i], 1, spaces(line[i])) "/** ", " */")
      i = j
      continue
    }
    at = match(line[i], /  \/\/ /)
    code = at ? substr(line[i], 1, at - 1) : line[i]
    column = -1
    if (at && !bodies && !parens && code !~ /^ *[#}]/ && line[i] !~ /NOLINT/) {
      if (code ~ /\{ *$/) {
        track(code)
        print "/** " escaped(substr(line[i], at + 5)) " */ " code
        continue
      }
      track(code)
      if (!parens) {
        column = at + 1
        print code "  ///< " escaped(substr(line[i], at + 5))
        continue
      }
    } else {
      track(code)
    }
    print line[i]
  }
}

# ---- C ------------------------------------------------------------------------------------------

function c_text(s) { sub(/^ *(\/\*| \*\/?|\*)/, "", s); sub(/^ /, "", s); sub(/ *\*\/ *$/, "", s); return s }

# Whether the section's comments name the member (or what a stride is of).
function named(member,    base) {
  base = member
  sub(/_(row|head|token|batch)?_?stride$/, "", base)
  return index(section_words, " " member " ") || index(section_words, " " base " ") || member ~ /_stride$/
}
function remember(words) { gsub(/[^A-Za-z0-9_]+/, " ", words); section_words = section_words " " words " " }

# `type a, b;` as a declaration of each with the same comment: Doxygen gives a list's comment to its first name only.
function each_member(s, says,    type, names, list, n, i, out) {
  type = s
  sub(/ [a-z0-9_]+(\[[0-9]+\])?(, *[a-z0-9_]+)*; *$/, "", type)
  names = substr(s, length(type) + 2)
  sub(/; *$/, "", names)
  n = split(names, list, /, */)
  out = ""
  for (i = 1; i <= n; ++i) {
    out = out type " " list[i] "; /**< " says " */"
    if (i == 1) sub(/^ +/, " ", type)
  }
  return out
}

# A declaration of a section without a comment of its own.
function c_declaration(s,    name, names, n, i, type, says) {
  if (s ~ /^ +size_t struct_size;$/) return s "  /**< sizeof this structure */"
  if (match(s, /hadal_[a-z0-9_]*_(desc|args) \{$/) && s ~ /^typedef struct/) {
    name = substr(s, RSTART + 6, RLENGTH - 8)
    says = name ~ /_desc$/ ? "What to plan: sizes (row counts: the most of a call), strides and options." \
                           : "One call: its sizes and operands."
    return "/** " says " */ " s
  }
  if (match(s, /hadal_[a-z0-9_]*_(plan|record)\(/) && s ~ /^HADAL_API/) {
    name = substr(s, RSTART + 6, RLENGTH - 7)
    says = name ~ /_plan$/ ? "Chooses and compiles for the desc. Any thread." \
                           : "Records a call. Any thread that may use the command buffer."
    return "/** " says " */ " s
  }
  if (s ~ /^ +[A-Za-z_0-9]+ [a-z0-9_, ]+;$/) {
    names = s
    sub(/^ +[A-Za-z_0-9]+ /, "", names)
    sub(/;$/, "", names)
    type = s
    sub(/^ +/, "", type)
    sub(/ .*/, "", type)
    n = split(names, name_list, /, */)
    for (i = 1; i <= n; ++i) {
      if (type !~ /^hadal_.*_(format|type|flags|scoring|method|rounding|direction|weight)$/ && !named(name_list[i])) return s
    }
    says = names ~ /_stride/ ? "Distance of rows; 0: tight." : type == "hadal_range" ? "Operand of the formula." : \
           type ~ /^hadal_/ ? "See the type." : "Size in the formula."
    return each_member(s, says)
  }
  if (match(s, /^typedef uint32_t hadal_[a-z0-9_]+;$/)) {
    enum_of = s
    gsub(/typedef uint32_t |;/, "", enum_of)
    says = enum_of
    sub(/^hadal_/, "", says)
    gsub(/_/, " ", says)
    return "/** " toupper(substr(says, 1, 1)) substr(says, 2) ": one of the values below (flags: any of them). */ " s
  }
  if (s ~ /^enum \{/ && enum_of != "") {
    says = enum_of
    s = "/** Values of " says ". */ " s
  }
  return s
}

function c_block(i,    j, n, at) {
  for (j = i; line[j] !~ /\*\//; ++j) {}
  n = 0
  for (at = i; at <= j; ++at) { text[++n] = c_text(line[at]); remember(line[at]) }
  text[n + 1] = text[n + 2] = ""
  block_lines = n
  return j
}

function c(    i, j, at, open, code, group, title, after) {
  open = 0
  for (i = 1; i <= NR; ++i) {
    if (i == 1) {
      j = c_block(i)
      emit(block_lines, "/** @fileof ", " */")
      i = j
      continue
    }
    if (line[i] ~ /^\/\* ---- .* -+ \*\/$/) {
      title = line[i]
      sub(/^\/\* -+ /, "", title)
      sub(/ -+ \*\/$/, "", title)
      group = title
      sub(/:.*/, "", group)
      gsub(/[^A-Za-z0-9]+/, "_", group)
      section_words = " "
      remember(title)
      print (open ? "/** @} */ " : "") "/** @defgroup c_" group " " escaped(title)
      open = 1
      if (line[i + 1] ~ /^\/\*/) {
        j = c_block(i + 1)
        emit(block_lines, "", " @{ */")
        i = j
      } else {
        print "@{ */"
        if (line[i + 1] == "") ++i  # keeps the count of lines
      }
      continue
    }
    if (line[i] ~ /^ *\/\*/) {
      j = c_block(i)
      if (line[j] !~ /\*\/ *$/ || line[j + 1] ~ /^ *$/) for (at = i; at <= j; ++at) print line[at]
      else emit(block_lines, substr(line[i], 1, spaces(line[i])) "/** ", " */")
      i = j
      continue
    }
    if (open && line[i] ~ /^#ifdef __cplusplus/) { print "/** @} */ " ; open = 0 }
    at = match(line[i], / \/\* /)
    if (at && line[i] !~ /^#(else|endif)/) {
      code = substr(line[i], 1, at - 1)
      remember(line[i])
      after = substr(line[i], at + 4)
      if (code ~ /\{ *$/) { print "/** " escaped(c_text("/* " after)) " */ " code; continue }
      sub(/ *\*\/ *$/, "", after)
      if (code ~ /^ +[A-Za-z0-9_]+ [a-z0-9_]+(, *[a-z0-9_]+)+; *$/ && line[i] ~ /\*\/ *$/) {
        print each_member(code, escaped(after))
        continue
      }
      printf "%s", code " /**< " escaped(after)
      for (j = i; line[j] !~ /\*\//; ++j) { remember(line[j + 1]); printf "\n%s", escaped(c_text(line[j + 1])) }
      print " */"
      i = j
      continue
    }
    print c_declaration(line[i])
  }
}

END {
  if (line[1] ~ /^\/\*/) c()
  else cpp()
}
