// Lines edited on a terminal by libedit, with its history.
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "chat/command.h"
#include "chat/lines.h"
#include "chat/terminal.h"

namespace hadal::chat {
namespace {

constexpr size_t kHistoryLines = 1000;

// libedit reads characters by the locale; a terminal that is not UTF-8 is one whose locale was
// not set.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

// The folder of the history, which only its owner may look into when it is made here.
bool make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder.parent_path(), error);
  return mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST;
}

class EditedLines : public LineReader {
 public:
  EditedLines(FILE* out, const std::filesystem::path& history_file)
      : out_(out), file_(history_file) {
    edit_ = el_init("hadal-chat", stdin, out, stderr);
    if (edit_ == nullptr) return;
    marks_pastes_ = has_escapes();
    open_history();
    set_up_keys();
  }
  ~EditedLines() override {
    if (edit_ != nullptr) el_end(edit_);
    if (history_ != nullptr) history_end(history_);
  }
  EditedLines(const EditedLines&) = delete;
  EditedLines& operator=(const EditedLines&) = delete;
  [[nodiscard]] bool ok() const { return edit_ != nullptr; }

  LineEnd read(const std::string& prompt, std::string& line) override {
    prompt_ = prompt;
    interrupted_ = false;
    line.clear();
    int length = 0;
    errno = 0;
    if (marks_pastes_) std::fputs("\033[?2004h", out_);
    std::fflush(out_);
    const char* text = el_gets(edit_, &length);
    const int error = errno;
    if (marks_pastes_) std::fputs("\033[?2004l", out_);
    std::fflush(out_);
    if (text == nullptr || length <= 0) {
      std::fputc('\n', out_);
      std::fflush(out_);
      if (length < 0) return error == EINTR ? LineEnd::kInterrupted : LineEnd::kFailed;
      return LineEnd::kEnd;
    }
    line.assign(text, size_t(length));
    while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
    if (interrupted_) {
      line = typed_;
      return LineEnd::kInterrupted;
    }
    remember(line);
    return LineEnd::kLine;
  }

 private:
  static EditedLines& self(EditLine* edit) {
    void* data = nullptr;
    el_get(edit, EL_CLIENTDATA, &data);
    return *static_cast<EditedLines*>(data);
  }
  static char* prompt(EditLine* edit) { return self(edit).prompt_.data(); }

  void open_history() {
    history_ = history_init();
    if (history_ == nullptr) return;
    HistEvent event;
    history(history_, &event, H_SETSIZE, int(kHistoryLines));
    history(history_, &event, H_SETUNIQUE, 1);
    if (file_.empty() || !make_folder(file_.parent_path())) return file_.clear();
    std::ifstream in(file_);
    size_t lines = 0;
    for (std::string line; std::getline(in, line); ++lines) {
      history(history_, &event, H_ENTER, line.c_str());
    }
    if (lines > 2 * kHistoryLines) write_anew();
  }

  // What grew beyond its size while lines were appended. libedit has the newest entry first.
  void write_anew() {
    HistEvent event;
    std::string text;
    for (int found = history(history_, &event, H_LAST); found >= 0;
         found = history(history_, &event, H_PREV)) {
      text += std::string(event.str) + '\n';
    }
    append(text, O_TRUNC);
  }

  // At once: a session that is killed, or runs beside another one, loses nothing.
  void remember(std::string line) {
    line.erase(line.find_last_not_of(" \t") + 1);
    if (history_ == nullptr || line.empty()) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    const bool one_line = line.find('\n') == line.npos;  // not so what was pasted
    if (!file_.empty() && one_line) append(line + '\n', 0);
  }

  void append(const std::string& text, int flags) {
    const int fd = open(file_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0) return file_.clear();
    (void)fchmod(fd, 0600);
    (void)write_all(fd, text);
    close(fd);
  }

  void set_up_keys() {
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, prompt);
    el_set(edit_, EL_SIGNAL, 1);
    el_set(edit_, EL_EDITOR, "emacs");
    if (history_ != nullptr) el_set(edit_, EL_HIST, history, history_);
    const auto bind = [this](const char* key, const char* what) {
      el_set(edit_, EL_BIND, key, what, nullptr);
    };
    bind("^R", "em-inc-search-prev");
    bind("\\e[3~", "ed-delete-next-char");
    bind("\\e[1~", "ed-move-to-beg");
    bind("\\e[4~", "ed-move-to-end");
    bind("\\e[1;5C", "em-next-word");
    bind("\\e[1;5D", "ed-prev-word");
    el_source(edit_, nullptr);  // ~/.editrc
    // The terminal sends no signals while a line is edited: libedit would lose what Ctrl-C means.
    el_set(edit_, EL_SETTY, "-d", "-isig", nullptr);
    el_set(edit_, EL_ADDFN, "hadal-interrupt", "clear the line or leave", interrupt);
    el_set(edit_, EL_ADDFN, "hadal-stop", "stop the program", stop);
    el_set(edit_, EL_ADDFN, "hadal-paste", "insert what the terminal pastes", paste);
    el_set(edit_, EL_ADDFN, "hadal-complete", "complete a command", complete);
    bind("^C", "hadal-interrupt");
    bind("^Z", "hadal-stop");
    bind("^I", "hadal-complete");
    bind("\\e[200~", "hadal-paste");
  }

  // Ends the line, so that the cursor comes to a new one; read() knows what it means.
  static unsigned char interrupt(EditLine* edit, int /*key*/) {
    EditedLines& lines = self(edit);
    const LineInfo* line = el_line(edit);
    lines.typed_.assign(line->buffer, line->lastchar);
    lines.interrupted_ = true;
    el_cursor(edit, int(line->lastchar - line->cursor));
    el_insertstr(edit, "^C");
    el_push(edit, "\n");
    return CC_REFRESH;
  }

  // libedit's own handler gives the terminal back and takes it again afterwards.
  static unsigned char stop(EditLine* /*edit*/, int /*key*/) {
    kill(0, SIGTSTP);
    return CC_NORM;
  }

  // Pasted lines are one text: their ends do not end the input.
  static unsigned char paste(EditLine* edit, int /*key*/) {
    constexpr std::wstring_view kEnd = L"\033[201~";
    std::wstring text;
    for (wchar_t c = 0; !text.ends_with(kEnd);) {
      if (el_wgetc(edit, &c) != 1) return CC_EOF;
      text += c == L'\r' ? L'\n' : c;
    }
    text.erase(text.size() - kEnd.size());
    while (text.ends_with(L'\n')) text.pop_back();
    return el_winsertstr(edit, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
  }

  static unsigned char complete(EditLine* edit, int /*key*/) {
    EditedLines& lines = self(edit);
    const LineInfo* line = el_line(edit);
    const std::string typed(line->buffer, line->cursor);
    const std::vector<std::string> found = complete_command(typed);
    if (found.empty() || line->cursor != line->lastchar) return CC_ERROR;
    std::string common = found.front();
    for (const std::string& word : found) {
      common.resize(
          size_t(std::mismatch(common.begin(), common.end(), word.begin(), word.end()).first -
                 common.begin()));
    }
    if (found.size() == 1) common += ' ';
    if (common.size() > typed.size()) {
      el_insertstr(edit, common.c_str() + typed.size());
      return CC_REFRESH;
    }
    std::fputc('\n', lines.out_);
    for (const std::string& word : found) std::fprintf(lines.out_, "%s  ", word.c_str());
    std::fputc('\n', lines.out_);
    return CC_REDISPLAY;
  }

  FILE* out_;
  std::filesystem::path file_;  // empty: history is not kept
  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  std::string prompt_, typed_;
  bool interrupted_ = false;
  bool marks_pastes_ = false;  // the terminal says where a paste begins and ends
};

}  // namespace

std::unique_ptr<LineReader> edited_lines(const std::filesystem::path& history_file) {
  use_utf8();
  // Answers may go elsewhere; the line is edited where it is seen.
  FILE* out = isatty(STDOUT_FILENO) != 0 ? stdout : stderr;
  if (isatty(STDIN_FILENO) == 0 || isatty(fileno(out)) == 0) return nullptr;
  auto lines = std::make_unique<EditedLines>(out, history_file);
  if (!lines->ok()) return nullptr;
  return lines;
}

}  // namespace hadal::chat
