"""The engine: many requests at once over one checkpoint."""

import ctypes
import os
import threading
from ctypes import POINTER, byref, c_char_p, c_size_t, c_uint32, c_uint64, c_void_p, cast
from dataclasses import dataclass, field

import numpy as np

from . import _native
from ._native import call, engine
from .text import Tokenizer, ids_array, path_bytes

_CACHE_FORMATS = {"f32": 0, "bf16": 1, "fp8": 2}
_DRAFT_SOURCES = {"mtp": 0, "ngram": 1, "both": 2}
_SPECULATE, _ALWAYS_DRAFT, _ALWAYS_SWAP, _ABSORB_BF16, _NO_TOKENIZER = 1, 2, 4, 8, 16
_LOGPROBS, _IGNORE_EOS, _PREFILL_ONLY, _PLAIN_TEXT = 1, 2, 4, 8
FINISH = ("", "length", "stop", "deadline", "failed", "exported")


def _refuse(text):
    raise _native.InvalidArgument(text, "InvalidArgument")


@dataclass
class Token:
    """A token of a request, or its end, or both."""

    request: int
    id: int = None           # None: an end that no token brought
    text: str = ""           # what may be shown now, often empty
    finish: str = ""         # "" while it goes on: length, stop, deadline, failed, exported
    error: Exception = None  # with failed
    logprob: float = None    # where asked for
    top_logprobs: list = field(default_factory=list)  # (id, logprob) of the most probable tokens


@dataclass
class Generation:
    """What a prompt gave."""

    text: str
    ids: np.ndarray
    finish: str
    logprobs: np.ndarray = None
    top_logprobs: list = None


class Engine:
    """A checkpoint on a device, serving any number of requests at once; a request gets what it would get alone.

    One thread's at a time. Either generate() or stream(), or add() and step() in a loop of one's own.

    device: index or part of a name, None: the best. max_context: positions of a request, 0: the model's or the most
    that fits. max_requests: that generate at once. cache_pages: of 64 positions, 0: as needed. cache_format: f32, bf16
    or fp8. speculate: None, "mtp", "ngram" or "both". progress(done, total) is called while loading; True cancels.
    cache_dir: keeps compiled pipelines between runs.
    """

    def __init__(self, model_dir, device=None, max_context=0, max_requests=8, max_chunk=0, cache_pages=0,
                 cache_format="f32", swap_bytes=0, read_ahead_bytes=32 << 20, speculate=None, draft_depth=1,
                 always_draft=False, absorb_bf16=False, tokenizer=True, progress=None, cache_dir=None):
        self._handle = None
        self._masks = {}
        self._caught = None
        self._lock = threading.RLock()
        options = self._options(model_dir, device, max_context, max_requests, max_chunk, cache_pages, cache_format,
                                swap_bytes, read_ahead_bytes, speculate, draft_depth, always_draft, absorb_bf16,
                                tokenizer, cache_dir)
        if progress is not None:
            options.progress = _native.PROGRESS(lambda _, done, total: self._guard(progress, 1, done, total))
        made = c_void_p()
        self._call(engine.hadal_engine_load, byref(options), byref(made))
        self._handle = made
        self._describe()

    @staticmethod
    def _options(model_dir, device, max_context, max_requests, max_chunk, cache_pages, cache_format, swap_bytes,
                 read_ahead_bytes, speculate, draft_depth, always_draft, absorb_bf16, tokenizer, cache_dir):
        if cache_format not in _CACHE_FORMATS:
            _refuse(f"engine: cache_format must be f32, bf16 or fp8, got {cache_format!r}")
        if speculate is not None and speculate not in _DRAFT_SOURCES:
            _refuse(f"engine: speculate must be None, mtp, ngram or both, got {speculate!r}")
        options = _native.EngineOptions(
            model_dir=path_bytes(model_dir), max_context=max_context, max_requests=max_requests, max_chunk=max_chunk,
            cache_pages=cache_pages, cache_format=_CACHE_FORMATS[cache_format], swap_bytes=swap_bytes,
            read_ahead_bytes=read_ahead_bytes, draft_depth=draft_depth)
        if device is not None:
            options.device = str(device).encode("utf-8")
        if cache_dir is not None:
            os.makedirs(cache_dir, exist_ok=True)
            options.cache_dir = path_bytes(cache_dir)
        if speculate is not None:
            options.flags |= _SPECULATE | (_ALWAYS_DRAFT if always_draft else 0)
            options.draft_source = _DRAFT_SOURCES[speculate]
        options.flags |= (_ABSORB_BF16 if absorb_bf16 else 0) | (0 if tokenizer else _NO_TOKENIZER)
        return options

    @classmethod
    def plan(cls, model_dir, **options):
        """What Engine(model_dir, ...) would need and what fits, before anything is loaded: a dict of bytes and pages."""
        defaults = dict(device=None, max_context=0, max_requests=8, max_chunk=0, cache_pages=0, cache_format="f32",
                        swap_bytes=0, read_ahead_bytes=0, speculate=None, draft_depth=1, always_draft=False,
                        absorb_bf16=False, tokenizer=True, cache_dir=None)
        unknown = set(options) - set(defaults)
        if unknown:
            raise TypeError(f"unknown option {sorted(unknown)[0]!r}")
        asked = cls._options(model_dir, **{**defaults, **options})
        memory = _native.EngineMemory()
        call(engine.hadal_engine_plan, byref(asked), byref(memory))
        return {name: getattr(memory, name) for name, _ in memory._fields_[1:]}

    # ---- callbacks: an exception is kept, and raised by the call that it happened in ----

    def _guard(self, function, failed, *arguments):
        try:
            return int(bool(function(*arguments)))
        except BaseException as error:  # pylint: disable=broad-except
            self._caught = error
            return failed

    def _call(self, function, *arguments):
        with self._lock:
            self._caught = None
            try:
                call(function, *arguments)
            finally:
                caught, self._caught = self._caught, None
                if caught is not None:
                    raise caught

    def _describe(self):
        facts = _native.EngineFacts()
        call(engine.hadal_engine_describe, self._handle, byref(facts))
        self.device_name, self.driver = facts.device_name.decode(), facts.driver.decode()
        self.max_context, self.max_requests = facts.max_context, facts.max_requests
        self.cache_pages, self.vocab_size = facts.cache_pages, facts.vocab_size
        self.eos_ids = [facts.eos_ids[i] for i in range(facts.eos_count)]
        self.device_bytes, self.weights_bytes = facts.device_bytes, facts.weights_bytes
        own = engine.hadal_engine_tokenizer(self._handle)
        self._tokenizer = own

    def _alive(self):
        if self._handle is None:
            _refuse("engine: is closed")
        return self._handle

    @property
    def tokenizer(self):
        """The checkpoint's tokenizer and chat template; None without one."""
        self._alive()
        return Tokenizer._of_engine(self, self._tokenizer) if self._tokenizer else None

    def close(self):
        """Drops the requests and gives the device's memory back; done at the end of a with block, too."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                engine.hadal_engine_destroy(handle)
            self._masks.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __repr__(self):
        return f"<hadal.Engine on {self.device_name} ({self.driver})>"

    # ---- requests ----

    def _mask(self, function):
        """The C callback of a Python one, which gets the generated ids and returns the allowed ids, or None for all."""
        def ask(_, generated, count, allowed, words):
            try:
                ids = np.ctypeslib.as_array(generated, (count,)).copy() if count else np.zeros(0, np.uint32)
                answer = function(ids)
                if answer is None:
                    return 0
                answer = np.asarray(answer)
                if answer.dtype == bool:
                    answer = np.flatnonzero(answer)
                answer = ids_array(answer)
                if answer.size and int(answer.max()) >= 32 * words:
                    _refuse(f"mask: ids must be below {32 * words}, got {answer.max()}")
                bits = np.ctypeslib.as_array(allowed, (words,))
                np.bitwise_or.at(bits, answer // 32, np.uint32(1) << (answer % 32))
                return 1
            except BaseException as error:  # pylint: disable=broad-except
                self._caught = error
                return -1
        return _native.MASK(ask)

    def _request(self, prompt, max_new_tokens, temperature, top_k, top_p, min_p, seed, repetition_penalty,
                 presence_penalty, frequency_penalty, logit_bias, logprobs, mask, stop, stop_ids, ignore_eos, special,
                 timeout, priority, prefill_only):
        request = _native.EngineRequest(
            max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
            repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, timeout_seconds=timeout, priority=priority)
        keep = []  # what the request points to
        if isinstance(prompt, str):
            data = prompt.encode("utf-8")
            request.text, request.text_bytes = data, len(data)
            request.flags |= 0 if special else _PLAIN_TEXT
        else:
            ids = ids_array(prompt)
            storage = (c_uint32 * max(ids.size, 1))(*ids.tolist())
            request.prompt, request.prompt_tokens = storage, ids.size
            keep.append(storage)
        bias = (_native.LogitBias * len(logit_bias))(*[(int(i), float(v)) for i, v in logit_bias.items()])
        request.logit_bias, request.logit_bias_count = bias, len(logit_bias)
        if logprobs is not None:
            request.flags |= _LOGPROBS
            request.top_logprobs = logprobs
        ends = ids_array(stop_ids)
        stops = (c_uint32 * max(ends.size, 1))(*ends.tolist())
        request.stop_ids, request.stop_ids_count = stops, ends.size
        texts = [stop] if isinstance(stop, str) else list(stop)
        strings = (c_char_p * max(len(texts), 1))(*[text.encode("utf-8") for text in texts])
        request.stop, request.stop_count = strings, len(texts)
        request.flags |= (_IGNORE_EOS if ignore_eos else 0) | (_PREFILL_ONLY if prefill_only else 0)
        if mask is not None:
            request.mask = self._mask(mask)
        keep += [bias, stops, strings]
        return request, keep

    def add(self, prompt, max_new_tokens=200, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0,
            repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, logit_bias=None, logprobs=None,
            mask=None, stop=(), stop_ids=(), ignore_eos=False, special=True, timeout=0.0, priority=0,
            prefill_only=False):
        """Adds a request and returns its number, for step() and cancel().

        prompt: a text or ids. temperature 0: greedy. logprobs: None, or report log-probabilities of the token and of
        that many of the most probable ones. mask(generated ids) -> the ids (or a bool array) that may follow, None:
        all. stop: strings that end the text, in front of them. special: put the checkpoint's special tokens around a
        text (False for what Tokenizer.chat rendered). timeout in seconds, 0: none. prefill_only: prompt and first
        token, then export().
        """
        request, keep = self._request(
            prompt, max_new_tokens, temperature, top_k, top_p, min_p, seed, repetition_penalty, presence_penalty,
            frequency_penalty, logit_bias or {}, logprobs, mask, stop, stop_ids, ignore_eos, special, timeout, priority,
            prefill_only)
        number = c_uint64()
        self._call(engine.hadal_engine_add, self._alive(), byref(request), byref(number))
        del keep
        if mask is not None:
            self._masks[number.value] = request.mask
        return number.value

    def cancel(self, number):
        """Ends a request; unknown and ended ones are ignored."""
        self._call(engine.hadal_engine_cancel, self._alive(), number)
        self._masks.pop(number, None)

    @property
    def idle(self):
        """Whether no request is left."""
        return bool(engine.hadal_engine_idle(self._alive()))

    def step(self):
        """One batch on the device: the tokens that it gave."""
        entries, count = c_void_p(), c_size_t()
        failed = None
        with self._lock:
            self._caught = None
            call(engine.hadal_engine_step, self._alive(), byref(entries), byref(count))
            failed, self._caught = self._caught, None
            if count.value == 0:
                return []
            pointers = cast(entries, POINTER(POINTER(_native.EngineToken)))
            tokens = [self._token(pointers[i].contents, failed) for i in range(count.value)]
        for token in tokens:
            if token.finish:
                self._masks.pop(token.request, None)
        return tokens

    @staticmethod
    def _token(entry, cause):
        token = Token(entry.request, finish=FINISH[entry.finish])
        if entry.has_token:
            token.id = entry.id
        token.text = ctypes.string_at(entry.text, entry.text_bytes).decode("utf-8", "replace")
        if entry.status != 0:
            token.error = _native.make_error(entry.status, entry.message.decode("utf-8", "replace"))
            if cause is not None:
                token.error.__cause__ = cause
        if entry.has_logprob:
            token.logprob = entry.logprob
            token.top_logprobs = [(entry.top[i].id, entry.top[i].logprob) for i in range(entry.top_count)]
        return token

    def stream(self, prompt, **sampling):
        """Yields the tokens of one prompt as they come; options as add(). Leaving the loop cancels it."""
        number = self.add(prompt, **sampling)
        finished = False
        try:
            while not finished:
                for token in self.step():
                    if token.request != number:
                        continue
                    finished = bool(token.finish)
                    if token.error is not None:
                        raise token.error
                    yield token
        finally:
            if not finished and self._handle is not None:
                self.cancel(number)

    def generate(self, prompts, **sampling):
        """A Generation of a prompt (a text or a list of ids), or a list of them for a list of prompts, all at once.

        Options as add(). A prompt that fails raises.
        """
        one = isinstance(prompts, (str, np.ndarray)) or (len(prompts) > 0 and np.ndim(prompts[0]) == 0
                                                         and not isinstance(prompts[0], str))
        wanted = [prompts] if one else list(prompts)
        numbers, gathered = [], {}
        try:
            for prompt in wanted:
                numbers.append(self.add(prompt, **sampling))
                gathered[numbers[-1]] = []
            left = set(numbers)
            while left:
                for token in self.step():
                    if token.request not in gathered:
                        continue
                    if token.error is not None:
                        raise token.error
                    gathered[token.request].append(token)
                    if token.finish:
                        left.discard(token.request)
        except BaseException:
            for number in numbers:
                if self._handle is not None:
                    self.cancel(number)
            raise
        results = [self._generation(gathered[number]) for number in numbers]
        return results[0] if one else results

    @staticmethod
    def _generation(tokens):
        with_id = [t for t in tokens if t.id is not None]
        result = Generation("".join(t.text for t in tokens), np.array([t.id for t in with_id], np.uint32),
                            tokens[-1].finish)
        if with_id and with_id[0].logprob is not None:
            result.logprobs = np.array([t.logprob for t in with_id], np.float32)
            result.top_logprobs = [t.top_logprobs for t in with_id]
        return result

    # ---- the rest ----

    def warm_up(self, threads=None):
        """Makes the pipelines that requests need before the first token that matters."""
        options = _native.WarmUpOptions(threads=threads or os.cpu_count() or 1)
        self._call(engine.hadal_engine_warm_up, self._alive(), byref(options))

    def export(self, number):
        """The request as bytes, for import_() of an engine of the same model, here or elsewhere."""
        data, count = c_void_p(), c_size_t()
        with self._lock:
            call(engine.hadal_engine_export, self._alive(), number, byref(data), byref(count))
            return ctypes.string_at(data, count.value)

    def import_(self, state, mask=None):
        """Goes on with an exported request; returns its number here. `mask` is the request's, where it had one."""
        function = self._mask(mask) if mask is not None else _native.MASK(0)
        number = c_uint64()
        self._call(engine.hadal_engine_import, self._alive(), bytes(state), len(state), function, None, byref(number))
        if mask is not None:
            self._masks[number.value] = function
        return number.value

    def stats(self):
        """Counters since the load, as a dict (hadal_engine_stats)."""
        stats = _native.EngineStats()
        call(engine.hadal_engine_statistics, self._alive(), byref(stats))
        return {name: getattr(stats, name) for name, _ in stats._fields_[1:]}
