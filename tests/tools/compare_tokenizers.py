#!/usr/bin/env python3
"""Compares hadal-tokenize with the `tokenizers` library on many generated strings.

    compare_tokenizers.py --tool build/hadal-tokenize MODEL_DIR [--python CMD] [--count N]
        [--seed S] [--all-characters] [--golden OUT.json]

The library may live elsewhere: --python is the command of an interpreter that has it, for example
"chroot /var/tmp/peers-root python3". Needs no other package. --golden writes a compact set of
cases with the library's answers, which tests/tokenizer_test.cpp proves without the library.

Characters that Unicode assigned after version 14 are left out (PCRE2 10.42 has 14, Oniguruma
6.9.10 has 16, and a character unknown to one of them is in no category): run it with a Python of
Unicode 14 (3.11), whose own table says which these are.
"""

import argparse
import json
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
import unicodedata

# Runs in the other interpreter: one JSON request on standard input, one JSON answer.
WORKER = r"""
import json, sys
from tokenizers import Tokenizer
request = json.load(sys.stdin)
tokenizer = Tokenizer.from_str(request['tokenizer'])
special = request['special']
ids = [e.ids for e in tokenizer.encode_batch(request['texts'], add_special_tokens=special)]
decoded = [tokenizer.decode(i, skip_special_tokens=not special) for i in request['ids']]
json.dump({'ids': ids, 'decoded': decoded}, sys.stdout)
"""

SPACES = ('\t\n\v\f\r \x1c\x1f\x85\xa0\u1680\u180e\u2000\u2003\u2007\u200a\u200b\u2028\u2029'
          '\u202f\u205f\u2060\u3000\ufeff')
MARKS = '\u0300\u0301\u0338\u0483\u0591\u064b\u093f\u0e31\u20dd\u302a\ufe0f\U0001d165\U000e0100'
DIGITS = ('0123456789\u0663\u0966\u0e52\u00b2\u00bd\u2167\u2460\u3007\u4e00\uff11\U0001d7d8'
          '\U00010107')
PUNCTUATION = ('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~\u00a1\u00ab\u2014\u2026\u3001\u300c\uff01'
               '\u00a6\u20ac\u2211\U0001f600')
CJK = ('\u4dff\u4e00\u4eba\u9fa5\u9fa6\u9fff\u303f\u3040\u3042\u309f\u30a0\u30ab\u30fc\u30ff'
       '\u3100\u3400\uac00\U00020000')
LETTERS = ('abcxyzABCXYZ\u00aa\u00df\u00e9\u01c5\u0131\u017f\u02b0\u0430\u05d0\u0627\u0e01\u10d0'
           '\u1e9e\u212a\U00010400\U0001d400')
OTHERS = ('\x00\x01\x1b\x7f\x9f\u00ad\u034f\u061c\u200c\u200d\u202e\u2066\ue000\ufdd0\ufffc'
          '\ufffd\uffff\U000e0001\U0010ffff')
WORDS = '\u200cab_\u0301\u203f\u0660\u2160\u24b6\u00b2'  # in and out of the several notions of \w
ALPHABETS = [WORDS, SPACES, MARKS, DIGITS, PUNCTUATION, CJK, LETTERS, OTHERS, ' \n', ' \t\r\n',
             "'sdmtlrve "]


def split(pattern, kind='Regex', behavior='Isolated', invert=False):
    return {'type': 'Split', 'pattern': {kind: pattern}, 'behavior': behavior, 'invert': invert}


def byte_level(prefix=False, regex=False):
    return {'type': 'ByteLevel', 'add_prefix_space': prefix, 'trim_offsets': True,
            'use_regex': regex}


def pre(*steps):
    return {'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [*steps]}}


def added(vocab, *tokens):
    """Added tokens, numbered as the library numbers them."""
    entries, next_id = [], len(vocab)
    for content, flags in tokens:
        token_id = vocab.get(content, next_id)
        next_id += content not in vocab
        entries.append({'id': token_id, 'content': content, 'special': False, 'normalized': False,
                        **{flag: False for flag in ('single_word', 'lstrip', 'rstrip')},
                        **{flag: True for flag in flags.split()}})
    return entries


def with_pairs(parsed):
    """The same steps with one merge for every pair of bytes. With a real vocabulary most wrong cuts
    between words leave the ids as they are; here a cut shows, above all between ASCII and others,
    because those merges come first."""
    alphabet = byte_alphabet()
    pairs = sorted(((left, right) for left in range(256) for right in range(256)),
                   key=lambda pair: ((pair[0] < 128) == (pair[1] < 128), pair))
    merges = [[alphabet[left], alphabet[right]] for left, right in pairs]
    vocab = {token: i for i, token in enumerate(alphabet + [a + b for a, b in merges])}
    tokens = [(t['content'], 'special' if t['special'] else '') for t in parsed['added_tokens']]
    return {**parsed, 'added_tokens': added(vocab, *tokens),
            'model': {**parsed['model'], 'vocab': vocab, 'merges': merges}}


def byte_alphabet():
    """GPT-2's character for each byte."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return [chr(byte if byte in itself else 256 + others.index(byte)) for byte in range(256)]


def variants(parsed):
    """Name and JSON merge patch (RFC 7386) of tokenizers with other features than parsed."""
    gpt4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    o200k = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
             r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
             r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:[sdmt]|ll)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+")
    yield 'itself', {}
    yield 'gpt2', {'pre_tokenizer': byte_level(regex=True)}
    yield 'gpt2 with prefix space', {'pre_tokenizer': byte_level(True, True)}
    yield 'split, then prefix space', pre(split(r'\s+', behavior='Removed'), byte_level(True))
    yield 'gpt4', pre(split(gpt4), byte_level())
    yield 'o200k', pre(split(o200k), byte_level())
    for behavior in ('Removed', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous', 'Isolated'):
        for invert in (False, True):
            yield (f'{behavior} {invert}',
                   pre(split(r'\s|\p{P}', behavior=behavior, invert=invert), byte_level()))
    yield 'string', pre(split('. ', 'String', 'MergedWithPrevious'), byte_level())
    yield 'empty matches', pre(split(r'\p{N}*', behavior='MergedWithNext'), byte_level())
    yield 'words', pre(split(r'\w+|\W'), byte_level())
    yield 'not words', pre(split(r'[\w\-]+|[^\w\s]+'), byte_level())
    yield 'scripts', pre(split(r'\p{Han}+|\P{^Hiragana}+|[\p{Latin}\p{Cyrillic}]'), byte_level())
    yield 'lines', pre(split(r'^ *|(?<=\p{L})\d+$|.(?=\n)'), byte_level())
    yield 'escapes', pre(split(r'\x{4e00}|\x41|\u00e9|\v|[\t\f]|a{2,}?|(?>b+)c|d{0,2}|{|x++'),
                         byte_level())
    vocab = parsed['model']['vocab']
    size = len(vocab)
    yield 'added tokens', {'added_tokens': added(
        vocab, ('king', 'single_word'), ('<l>', 'lstrip special'), ('<r>', 'rstrip'),
        ('<lr>', 'lstrip rstrip'), ('<n>x', 'normalized'), ('<n>', 'normalized'),
        ('\u00e9', 'special'), ('a b\u1680', ''), ('  ', ''),
        ('<w>', 'single_word lstrip rstrip normalized'))}
    if 'the' in vocab:
        yield 'ignore_merges', {'model': {'ignore_merges': True, 'merges': ['t h', 'th e', 'Ġ t']}}
    yield 'missing bytes', {'model': {'merges': [['a', 'b'], ['Ġ', 't']],
                                      'vocab': {'x': None, 'Ċ': None, 'ã': None,
                                                'ab': size + 50, 'Ġt': size + 51, 'Ġ': size + 52}},
                            'added_tokens': []}
    bos, eos = (t['content'] for t in parsed['added_tokens'][:2])
    yield 'template', {'post_processor': {
        'type': 'TemplateProcessing',
        'single': [{'SpecialToken': {'id': bos, 'type_id': 0}},
                   {'Sequence': {'id': 'A', 'type_id': 0}},
                   {'SpecialToken': {'id': eos, 'type_id': 0}}],
        'pair': [{'Sequence': {'id': 'A', 'type_id': 0}}, {'Sequence': {'id': 'B', 'type_id': 0}}],
        'special_tokens': {t['content']: {'id': t['content'], 'ids': [t['id']],
                                          'tokens': [t['content']]}
                           for t in parsed['added_tokens'][:2]}}}


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge_patch(target.get(key), value)
    return target


def run_tool(tool, model_dir, arguments, lines):
    result = subprocess.run([tool, str(model_dir), '--json', *arguments], text=True, check=True,
                            input=''.join(line + '\n' for line in lines), stdout=subprocess.PIPE)
    return result.stdout.split('\n')[:-1]


def run_library(python, tokenizer, texts, ids, special):
    request = {'tokenizer': tokenizer, 'texts': texts, 'ids': ids, 'special': special}
    result = subprocess.run([*shlex.split(python), '-c', WORKER], input=json.dumps(request),
                            text=True, check=True, stdout=subprocess.PIPE)
    return json.loads(result.stdout)


def is_old_character(code):
    category = unicodedata.category(chr(code))
    noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return category != 'Cs' and (category != 'Cn' or noncharacter)


def random_text(rng, natural, added, old_characters):
    parts = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.randrange(8)
        if kind == 0:
            parts.append(''.join(chr(rng.choice(old_characters)) for _ in range(rng.randint(1, 6))))
        elif kind == 1:
            start = rng.randrange(len(natural))
            parts.append(natural[start:start + rng.randint(1, 60)])
        elif kind == 2 and added:
            token = rng.choice(added)
            parts.append(token if rng.random() < 0.7 else token[:rng.randint(1, len(token))])
        elif kind == 3:
            parts.append(rng.choice(rng.choice(ALPHABETS)) * rng.randint(1, 70))
        else:
            alphabet = ''.join(rng.sample(ALPHABETS, rng.randint(1, 3)))
            parts.append(''.join(rng.choice(alphabet) for _ in range(rng.randint(1, 10))))
    return ''.join(parts)


def random_ids(rng, all_ids, byte_ids):
    pool = byte_ids if rng.random() < 0.5 else all_ids
    return [rng.choice(pool) for _ in range(rng.randint(0, 20))]


def report(kind, cases, ours, theirs):
    wrong = [(c, o, t) for c, o, t in zip(cases, ours, theirs) if o != t]
    for case, our, their in wrong[:5]:
        print(f'{kind}: {case!a}\n  hadal   {our!a}\n  library {their!a}')
    print(f'{kind}: {len(cases)} cases, {len(wrong)} differ')
    return len(wrong)


class Pair:
    """One tokenizer.json in a folder of its own, asked both ways."""

    def __init__(self, arguments, folder, parsed):
        self.arguments, self.folder = arguments, folder
        self.json = json.dumps(parsed)
        (folder / 'tokenizer.json').write_text(self.json)
        self.added = [t['content'] for t in parsed['added_tokens']]
        vocab = parsed['model']['vocab']
        self.ids = sorted({*vocab.values(), *(t['id'] for t in parsed['added_tokens'])})
        self.byte_ids = [i for token, i in vocab.items() if len(token) == 1]

    def encode(self, texts, special=True):
        lines = run_tool(self.arguments.tool, self.folder, ['--special'] * special,
                         map(json.dumps, texts))
        theirs = run_library(self.arguments.python, self.json, texts, [], special)['ids']
        return [[int(i) for i in line.split()] for line in lines], theirs

    def decode(self, ids, special):
        lines = run_tool(self.arguments.tool, self.folder, ['--decode'] + ['--special'] * special,
                         [' '.join(map(str, line)) for line in ids])
        theirs = run_library(self.arguments.python, self.json, [], ids, special)['decoded']
        return [json.loads(line) for line in lines], theirs


def compare(name, pair, count, rng, natural, old_characters):
    """Number of differences, and the library's answers."""
    texts = [random_text(rng, natural, pair.added, old_characters) for _ in range(count)]
    ours, theirs = pair.encode(texts)
    wrong = report(f'{name}: encode', texts, ours, theirs)
    ids = [random_ids(rng, pair.ids, pair.byte_ids) for _ in range(count)]
    for special in (False, True):
        ours_text, theirs_text = pair.decode(ids, special)
        wrong += report(f'{name}: decode, special tokens {"kept" if special else "left out"}', ids,
                        ours_text, theirs_text)
    return wrong, list(zip(texts, theirs)), list(zip(ids, theirs_text))


def golden_entry(name, patch, encoded, decoded):
    """The shorter cases, evenly: many of the file itself, some of each variant."""
    def shorter(cases, count, size):
        cases = sorted((c for c in cases if size(c)), key=size)[:max(1, len(cases) // 2)]
        return cases[::max(1, len(cases) // count)][:count]
    return {'name': name, 'patch': patch,
            'encode': [{'text': text, 'ids': ids} for text, ids in
                       shorter(encoded, 25 if patch else 120, lambda c: len(c[1]))],
            'decode': [{'ids': ids, 'text': text} for ids, text in
                       shorter(decoded, 5 if patch else 120, lambda c: len(c[0]))]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('model_dir', type=pathlib.Path)
    parser.add_argument('--tool', required=True)
    parser.add_argument('--python', default=sys.executable)
    parser.add_argument('--count', type=int, default=5000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--all-characters', action='store_true')
    parser.add_argument('--pairs', action='store_true', help='with a merge for every pair of bytes')
    parser.add_argument('--variants', action='store_true', help='also with other features')
    parser.add_argument('--golden', type=pathlib.Path)
    arguments = parser.parse_args()
    if unicodedata.unidata_version.split('.')[0] != '14':
        print(f'note: characters of Unicode {unicodedata.unidata_version}, not 14')

    parsed = json.loads((arguments.model_dir / 'tokenizer.json').read_text())
    if arguments.pairs:
        parsed = with_pairs(parsed)
    golden_dir = pathlib.Path(__file__).parent.parent / 'golden'
    natural = (golden_dir / 'fables_heldout.txt').read_text()
    old_characters = [c for c in range(0x110000) if is_old_character(c)]
    rng = random.Random(arguments.seed)
    wrong = 0
    golden = []
    with tempfile.TemporaryDirectory() as folder:
        for name, patch in list(variants(parsed)) if arguments.variants else [('itself', {})]:
            pair = Pair(arguments, pathlib.Path(folder), merge_patch(parsed, patch))
            if arguments.all_characters:  # between neighbours that expressions treat differently
                for left, right in (('a', 'b'), (' ', '!'), ('\n', ' '), ('1', '\u4eba')):
                    texts = [left + chr(c) + right for c in old_characters]
                    wrong += report(f'{name}: all characters between {left!a} and {right!a}', texts,
                                    *pair.encode(texts))
            count = arguments.count
            more, encoded, decoded = compare(name, pair, count, rng, natural, old_characters)
            wrong += more
            golden.append(golden_entry(name, patch, encoded, decoded))
    if arguments.golden and not wrong:
        lines = [json.dumps(e, ensure_ascii=False, separators=(',', ':')) for e in golden]
        arguments.golden.write_text('[' + ',\n'.join(lines) + ']\n')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
