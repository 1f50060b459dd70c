#!/usr/bin/env python3
"""Writes tests/golden/chat_templates.json: what jinja2, set up as transformers does, makes of

 - the templates in tests/chat_templates/, which have the forms of DeepSeek-V3's, R1's and V3.1's
   (and one with macros, as other checkpoints of the architecture have), over conversations;
 - one-line templates that use the language's parts, and random mixtures of tags and white space.

    render_templates.py [--check] [--seed S] [--count N]

Needs python3-jinja2. With --check the file is compared, not written."""

import argparse
import json
import pathlib
import random

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / 'golden'


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                            extensions=['jinja2.ext.loopcontrols'])
ENVIRONMENT.filters['tojson'] = tojson
ENVIRONMENT.globals['raise_exception'] = raise_exception

CALL = {'id': 'f:0', 'type': 'function',
        'function': {'name': 'weather', 'arguments': '{"city": "Köln"}'}}
CALL_OBJECT = {'id': 'f:1', 'type': 'function',
               'function': {'name': 'add', 'arguments': {'b': 2.5, 'a': [1, None, True, 'x"\\']}}}
TOOLS = [{'type': 'function', 'function': {'name': 'weather', 'description': 'of a <city> & "more"',
                                           'parameters': {'type': 'object', 'properties': {}}}}]
CONVERSATIONS = [
    [{'role': 'user', 'content': 'Hi'}],
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'system', 'content': 'Be kind.'},
     {'role': 'user', 'content': '1+1?'},
     {'role': 'assistant', 'content': '<think>two?</think>It is 2.'},
     {'role': 'user', 'content': 'And 2+2?'}],
    [{'role': 'user', 'content': 'Weather?'},
     {'role': 'assistant', 'content': None, 'tool_calls': [CALL]},
     {'role': 'tool', 'content': 'rain', 'tool_call_id': 'f:0'}],
    [{'role': 'user', 'content': 'Both?'},
     {'role': 'assistant', 'content': None, 'tool_calls': [CALL, CALL]},
     {'role': 'tool', 'content': 'rain', 'tool_call_id': 'f:0'},
     {'role': 'tool', 'content': '{"x": 1}', 'tool_call_id': 'f:0'},
     {'role': 'assistant', 'content': 'Rain it is.'},
     {'role': 'user', 'content': 'Thanks.\n'}],
    [{'role': 'user', 'content': 'Sum?'},
     {'role': 'assistant', 'content': None, 'tool_calls': [CALL_OBJECT]}],
    [{'role': 'user', 'content': 'Say'}, {'role': 'assistant', 'content': 'Once', 'prefix': True}],
    [{'role': 'assistant', 'content': 'I begin.'}, {'role': 'user', 'content': '你好 {{ no }} {% if %}'}],
    [{'role': 'system', 'content': 'only'}],
    [],
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'part'}, {'type': 'image'},
                                  {'type': 'text', 'text': 'two'}]}],
]

VALUES = {
    'a': 3, 'b': -2.5, 's': ' Hello wörld ', 't': 'x<y>&\'"\n\tz', 'l': [3, 1, 2],
    'd': {'k': 1, 'z': [1, {'q': None}], 'items': 5}, 'n': None, 'yes': True, 'no': False,
    'e': [], 'es': '', 'big': 12345678901234,
    'msgs': [{'role': 'system', 'content': 'Sys 1'}, {'role': 'user', 'content': 'Hi'},
             {'role': 'assistant', 'content': '<think>foo</think>bar', 'tool_calls': None},
             {'role': 'user', 'content': 'Bye'}]}

LINES = r'''
{{a}} {{b}} {{s}} {{t}} {{l}} {{d}} {{n}} {{yes}} {{missing}}|
{{ a + 1 }} {{ a - 1.5 }} {{ a * 2 }} {{ a / 2 }} {{ a // 2 }} {{ a % 2 }} {{ a ** 3 }} {{ -a ** 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1e16 }} {{ 1.0 }} {{ 1e-7 }} {{ 123456.789 }} {{ 1/3 }} {{ 1e22 }} {{ 100000000000000000000.0 }} {{ 0.0001 }} {{0.00001}}
{{ "a" ~ 1 ~ none ~ 2.5 }} {{ 'x' 'y' }} {{ "\u00e9\x41\n\\" }} {{ 'it\'s' }}
{{ s|trim }}|{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'abc'|upper }}|{{ s|length }}|{{ s[1:4] }}|{{ s[::-1] }}|{{ s[-3:] }}|{{ s[2] }}|{{ s[99] }}
{{ t.split('<') }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,,c'.split(',',1) }} {{ 'a b  c '.split() }} {{ 'a b  c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',',1) }}
{{ 'abc'.startswith('a') }} {{ 'abc'.endswith(('x','c')) }} {{ 'abc'.replace('b','X') }} {{ 'aaa'.replace('a','b',2) }} {{ 'abc'.find('c') }} {{ 'abab'.count('ab') }} {{ ','.join(['a','b']) }}
{{ l|sort }} {{ l|sort(reverse=true) }} {{ l|first }} {{ l|last }} {{ l|join('-') }} {{ l|length }} {{ l|sum }} {{ l|max }} {{ l|min }} {{ l|reverse|list }} {{ l + [9] }} {{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[:2] }}
{{ d.k }} {{ d['k'] }} {{ d.nope }} {{ d.z[1].q }} {{ d.get('k') }} {{ d.get('x') }} {{ d.get('x', 4) }} {{ d.items()|list }} {{ d.keys()|list }} {{ d.values()|list }} {{ d['items'] }} {{ d|length }}
{{ d|tojson }} {{ t|tojson }} {{ l|tojson(indent=2) }} {{ d|tojson(indent=4) }} {{ n|tojson }} {{ yes|tojson }} {{ b|tojson }} {{ 'é'|tojson }} {{ []|tojson(indent=2) }} {{ {}|tojson }}
{{ d|tojson(sort_keys=true) }}
{{ missing is defined }} {{ a is defined }} {{ n is none }} {{ s is string }} {{ d is mapping }} {{ l is iterable }} {{ l is sequence }} {{ a is number }} {{ a is odd }} {{ a is divisibleby 3 }} {{ yes is true }} {{ a is not none }} {{ a is eq 3 }} {{ a is in l }} {{ d is iterable }} {{ yes is boolean }} {{ b is float }} {{ a is integer }} {{yes is integer}} {{ yes is number }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in 'abc' }} {{ 'k' in d }} {{ 3 in l }} {{ 4 not in l }} {{ not a }} {{ a and b }} {{ n or 'x' }} {{ yes and no or 'z' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 1 }} {{ [1,2] == [1,2] }} {{ [1] < [2] }} {{ none == missing }}
{{ 'yes' if a else 'no' }} {{ 'yes' if n else 'no' }} {{ 'yes' if n }}| {{ (1,2) }} {{ (1,) }} {{ () }} {{ [1,[2]] }} {{ {'a':1,'b':'c'} }} {{ 1,2 }}
{{ missing|default('d') }} {{ n|default('d') }} {{ n|default('d', true) }} {{ es|d('x', boolean=true) }} {{ missing|default }}
{{ 'a-b'|replace('-','+') }} {{ 'hello world'|title }} {{ 'hELLO'|capitalize }} {{ 'x'|indent }} {{ 'a\nb\n\nc'|indent(2) }} {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent(2, false, true) }} {{ ' x '|trim }} {{ 'xxaxx'|trim('x') }}
{{ '42'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ -3.9|int }} {{ '2.5'|float }} {{ 3|float }} {{ -3|abs }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.567|round(2) }} {{ 2.1|round(0,'ceil') }}
{{ msgs|selectattr('role','equalto','user')|list|length }} {{ msgs|map(attribute='role')|list }} {{ msgs|rejectattr('role','eq','user')|map(attribute='content')|join('|') }} {{ ['A','b']|map('lower')|list }} {{ [0,1,2]|select|list }} {{ [1,2,3]|select('odd')|list }} {{ [1,2,3]|reject('odd')|list }}
{{ [1,1,'A','a']|unique|list }} {{ ['b','A']|sort }} {{ ['b','A']|sort(case_sensitive=true) }} {{ {'b':1,'a':2}|dictsort }} {{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3]|batch(2,'x')|list }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ i }}{{ loop.previtem }}{{ loop.nextitem }},{% else %}none{% endfor %}
{% for i in e %}x{% else %}none{% endfor %}{% for i in missing %}x{% else %}none{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'añb' %}[{{ c }}]{% endfor %}
{% for i in range(10) if i % 2 %}{{ i }}{{ loop.index }}{{ loop.last }} {% endfor %}{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}
{% set ns = namespace(c=0, l=[]) %}{% for i in [1,2,3] %}{% set ns.c = ns.c + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.c }} {{ ns.l }}{% set ns.new = 4 %}{{ ns.new }}{{ ns.nope }}
{% set a, b = (1, 2) %}{{ a }}{{ b }}{% set q %}text {{ a }}{% endset %}{{ q }}{% set q | upper %}text {{ a }}{% endset %}{{ q }}
{% macro m(x, y=2) %}<{{ x }}{{ y }}>{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(y=4, x=5) }}{{ m() }}
{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% raw %}{{ not }} {% this %}{% endraw %}|  {%- raw -%}  x  {%- endraw -%}  |
a  {#- comment -#}  b {# c #} d
  {% if true %}
    x
  {% endif %}
y
  {%- if true -%}
    x
  {%- endif -%}
y
  {%+ if true %}
   z
  {% endif +%}
w
{{- a -}}   
  k
{% if a == 3 %}A{% elif a == 4 %}B{% else %}C{% endif %}{% if no %}A{% elif yes %}B{% endif %}
{{ a.b.c }}
{{ missing.x }}
{{ missing + 1 }}
{{ 'a' + 1 }}
{{ 1 < 'a' }}
{{ raise_exception('no!') }}
{{ foo() }}
{{ n.strip() }}
{{ range(3)|list }} {{ range(1,10,3)|list }} {{ range(5,0,-2)|list }} {{ dict(a=1, b=2) }}
{{ msgs[-1]['role'] }} {{ msgs[0].content }} {{ msgs|length }} {{ (msgs|last).content }} {{ msgs[1:]|length }}
{{ "<think>foo</think>bar".split("</think>")[-1] }} {{ 'a'.split('b') }} {{ "x" * 3 }} {{ [1] * 2 }} {{ 'a' > 'B' }}
{{ -1|abs }} {{ not true == false }} {{ not 1 in [2] }} {{ 2 - 1 - 1 }} {{ 2 ** 3 ** 2 }} {{ 1 + 2 ~ 3 }} {{ 10 // 3 * 2 }}
{{ {'a': {'b': [1, 2]}}['a'].b[1] }} {{ [1,2,][0] }} {{ {'x':1,}['x'] }} {{ 'a' is string and 'b' is string }} {{ a is defined and a is not none }}
{{ s|safe }} {{ s|string }} {{ 5|string + 'x' }} {{ [none, true, 1.5, 'q"\'', "it's"] }} {{ '\t\r\n\x01'|tojson }} {{ ['\t\n\\'] }}
{{ 'ab\ncd'.splitlines() }} {{ ' a b '.strip('ab ') }} {{ 'abc'.removeprefix('a') }} {{ 'a1'.isdigit() }} {{ '12'.isdigit() }} {{ 'x'.upper() }} {{ 'ab cd'.title() }} {{ 'éa'.find('a') }}
{% if msgs and msgs[0].role == 'system' %}{{ msgs[0].content }}{% endif %}{% for m in msgs[1:] %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alt') }}{% endif %}{{ m.role }}{% endfor %}
{{ true }} {{ True }} {{ None }} {{ False }} {{ none }} {{ l.index(2) }} {{ [1,1].count(1) }} {{ a is sameas a }} {{ [] is sameas [] }}
{%- for m in msgs %}{%- if m['role'] == 'assistant' and m['tool_calls'] is defined and m['tool_calls'] is not none %}T{%- else %}{{ m['content'] }}{%- endif %}{%- endfor %}
{{ '%s' }} {{ "{{" }} {{ '}}' }} {{ '%}' }} {% if '%}' %}ok{% endif %} {{ {'a':{'b':1}} }}
{{ 5 if true else 1 if false else 2 }} {{ (5 if false else 1) + 1 }} {% for x in (1 if false else [7]) %}{{x}}{% endfor %}
{{ loop }} {{ x is undefined }} {{ big * 1000 }} {{ 9007199254740993 + 1 }} {{ 0x }}
{{ 1_000 }} {{ 1.5e3 }} {{ .5 }}
{{ unclosed
{% if %}x{% endif %}
{% for x in %}{% endfor %}
{% endif %}
{% if a %}
{{ 'abc }}
{{ a | nofilter }}
{{ a is notest }}
{{ (a }}
{% include 'x' %}
'''

TAGS = ['{% if yes %}', '{%- if no -%}', '{% endif %}', '{%- endif %}', '{% endif -%}',
        '{% for i in l %}', '{% endfor %}', '{%- endfor -%}', '{{ i }}', '{{- a -}}', '{{ a }}', ' ',
        '\n', '  ', '\n\n', 'x', '\t', '{# c #}', '{#- c -#}', '{%+ if yes %}', '{% endif +%}',
        '{% set q = 1 %}', '{%- set q = 2 %}', '{% raw %}r {% endraw %}', '{{ q }}', '\r\n']


def mixture(rng):
    """Balanced tags with white space between."""
    out, open_tags = [], []
    for _ in range(rng.randrange(3, 25)):
        tag = rng.choice(TAGS)
        if ' if ' in tag:
            open_tags.append('if')
        elif ' for ' in tag:
            open_tags.append('for')
        elif 'end' in tag and 'raw' not in tag:
            kind = 'if' if 'endif' in tag else 'for'
            if not open_tags or open_tags[-1] != kind:
                continue
            open_tags.pop()
        out.append(tag)
    while open_tags:
        out.append('{%% end%s %%}' % open_tags.pop())
    return ''.join(out)


def render(source, variables):
    try:
        return ENVIRONMENT.from_string(source).render(**variables)
    except Exception:  # refused; why is told in other words
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--count', type=int, default=300)
    options = parser.parse_args()
    chats = []
    for path in sorted((GOLDEN.parent / 'chat_templates').glob('*.jinja')):
        source = path.read_text(encoding='utf-8')
        for messages in CONVERSATIONS:
            for prompt in (True, False):
                for extra in ({}, {'thinking': True}) if path.stem == 'v31' else ({},):
                    tools = TOOLS if prompt and path.stem == 'macros' else None
                    variables = dict(messages=messages, add_generation_prompt=prompt, tools=tools,
                                     bos_token='<｜begin▁of▁sentence｜>',
                                     eos_token='<｜end▁of▁sentence｜>', **extra)
                    chats.append(dict(template=path.name, messages=messages, tools=tools,
                                      add_generation_prompt=prompt, variables=extra,
                                      text=render(source, variables)))
    rng = random.Random(options.seed)
    lines = [line for line in LINES.split('\n') if line]
    sources = lines + ['\n'.join(lines[i:i + 4]) for i in range(0, len(lines), 3)]
    sources += [mixture(rng) for _ in range(options.count)]
    cases = [dict(template=source, text=render(source, VALUES)) for source in sources]
    text = json.dumps(dict(values=VALUES, cases=cases, chats=chats), ensure_ascii=False, indent=0)
    path = GOLDEN / 'chat_templates.json'
    if options.check:
        assert path.read_text(encoding='utf-8') == text + '\n', 'the file differs'
    else:
        path.write_text(text + '\n', encoding='utf-8')
    print(len(cases), 'templates,', len(chats), 'conversations,',
          sum(c['text'] is None for c in cases + chats), 'refused')


if __name__ == '__main__':
    main()
