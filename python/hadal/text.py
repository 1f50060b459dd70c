"""The text side of a checkpoint: tokenizer and chat template. Needs no device."""

import ctypes
import json
import os
from ctypes import byref, c_size_t, c_uint32, c_void_p

import numpy as np

from . import _native
from ._native import call, engine

_PLAIN = 1
_NO_GENERATION_PROMPT = 1


def path_bytes(path):
    return os.fsencode(os.fspath(path))


def ids_array(ids):
    """Token ids as an array of uint32."""
    array = np.asarray(ids)
    if array.size == 0:
        return np.zeros(0, np.uint32)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 0xffffffff:
        raise _native.InvalidArgument("ids: must be a sequence of integers from 0 to 2^32 - 1", "InvalidArgument")
    return np.ascontiguousarray(array, np.uint32)


def _text(function, *arguments):
    """Calls a function that fills text of any length."""
    count = c_size_t()
    call(function, *arguments, byref(count), None)
    text = ctypes.create_string_buffer(max(count.value, 1))
    call(function, *arguments, byref(count), text)
    return text.raw[:count.value].decode("utf-8")


class Tokenizer:
    """Thread-safe. hadal.Tokenizer(model_dir) reads tokenizer.json; an engine has its own as Engine.tokenizer."""

    def __init__(self, model_dir):
        self._owner = None
        self._handle = None
        made = c_void_p()
        call(engine.hadal_tokenizer_load, path_bytes(model_dir), byref(made))
        self._handle = made
        self._describe()

    @classmethod
    def _of_engine(cls, owner, handle):
        tokenizer = cls.__new__(cls)
        tokenizer._owner, tokenizer._handle = owner, c_void_p(handle)  # keeps the engine alive
        tokenizer._describe()
        return tokenizer

    def _describe(self):
        facts = _native.TokenizerFacts()
        call(engine.hadal_tokenizer_describe, self._handle, byref(facts))
        self.vocab_size = facts.vocab_size
        self.bos_id = None if facts.bos_id == _native.NO_TOKEN else facts.bos_id
        self.eos_id = None if facts.eos_id == _native.NO_TOKEN else facts.eos_id
        self.has_chat_template = bool(facts.has_chat_template)

    def __del__(self):
        if self._owner is None and getattr(self, "_handle", None) is not None:
            engine.hadal_tokenizer_destroy(self._handle)

    def _alive(self):
        if self._owner is not None:
            self._owner._alive()
        return self._handle

    def encode(self, text, special=True):
        """Ids (uint32) of a text; `special`: with the special tokens that the checkpoint puts around it."""
        data = text.encode("utf-8")
        ids = np.empty(len(data) + 16, np.uint32)  # a token has a byte at least
        count = c_size_t(ids.size)
        call(engine.hadal_tokenizer_encode, self._alive(), data, len(data), 0 if special else _PLAIN, byref(count),
             ids.ctypes.data_as(c_void_p))
        return ids[:count.value].copy()

    def decode(self, ids, special=False):
        """Text of ids; `special`: special tokens are shown, too."""
        ids = ids_array(ids)
        return _text(engine.hadal_tokenizer_decode, self._alive(), ids.ctypes.data_as(c_void_p), ids.size,
                     _PLAIN if special else 0)

    def id(self, token):
        """The id of a token by its own text, such as "<|end_of_text|>"."""
        found = c_uint32()
        call(engine.hadal_tokenizer_id, self._alive(), token.encode("utf-8"), byref(found))
        return found.value

    def chat(self, messages, tools=None, add_generation_prompt=True, **variables):
        """The text that the checkpoint's chat template makes of messages, for Engine.generate(text, special=False).

        messages: [{"role": "user", "content": "..."}, ...]; tools: a list or None; variables: what else the template
        reads (thinking=True). Raises Unsupported where the checkpoint has no template.
        """
        chat = _native.Chat(messages=json.dumps(messages, ensure_ascii=False).encode("utf-8"),
                            flags=0 if add_generation_prompt else _NO_GENERATION_PROMPT)
        if tools:
            chat.tools = json.dumps(tools, ensure_ascii=False).encode("utf-8")
        if variables:
            chat.variables = json.dumps(variables, ensure_ascii=False).encode("utf-8")
        return _text(engine.hadal_tokenizer_chat, self._alive(), byref(chat))
