"""The engine through the package on the small checkpoint, HADAL_TEST_MODEL."""

import ctypes
import gc
import json
import os
import pathlib
import shutil
import tempfile
import unittest

import numpy as np

import hadal
from hadal import _native

MODEL = os.environ["HADAL_TEST_MODEL"]
DEVICE = os.environ.get("HADAL_TEST_DEVICE")


class Text(unittest.TestCase):
    def test_round_trip(self):
        tokenizer = hadal.Tokenizer(MODEL)
        text = "The king\u2019s daughter, \u00e4\u20ac \U0001f98a."
        for special in (False, True):
            ids = tokenizer.encode(text, special=special)
            self.assertEqual(ids.dtype, np.uint32)
            self.assertEqual(tokenizer.decode(ids), text)
            self.assertLess(ids.max(), tokenizer.vocab_size)
        self.assertEqual(tokenizer.encode("", special=False).size, 0)
        self.assertEqual(tokenizer.decode([]), "")

    def test_special_tokens(self):
        tokenizer = hadal.Tokenizer(MODEL)
        config = json.loads((pathlib.Path(MODEL) / "tokenizer.json").read_text())
        for token in config["added_tokens"]:
            self.assertEqual(tokenizer.id(token["content"]), token["id"])
            self.assertEqual(tokenizer.decode([token["id"]], special=True), token["content"])
        with self.assertRaisesRegex(hadal.InvalidArgument, "tokenizer: token must be in the vocabulary"):
            tokenizer.id("<|nothing|>")
        with self.assertRaisesRegex(hadal.InvalidArgument, "tokenizer: id must be in the vocabulary"):
            tokenizer.decode([99999])
        for ids in ([-1], [1.5], [1 << 32], [[1]]):
            with self.assertRaises(hadal.InvalidArgument):
                tokenizer.decode(ids)

    def test_chat(self):
        with self.assertRaises(hadal.Unsupported):
            hadal.Tokenizer(MODEL).chat([{"role": "user", "content": "Hi"}])
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(pathlib.Path(MODEL) / "tokenizer.json", folder)
            (pathlib.Path(folder) / "chat_template.jinja").write_text(
                "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                "{% if thinking %}<think>{% endif %}{% if tools %}{{ tools|length }}{% endif %}"
                "{% if add_generation_prompt %}<assistant>{% endif %}")
            tokenizer = hadal.Tokenizer(folder)
            self.assertTrue(tokenizer.has_chat_template)
            messages = [{"role": "user", "content": "\u00dcber"}]
            self.assertEqual(tokenizer.chat(messages), "<user>\u00dcber<assistant>")
            self.assertEqual(tokenizer.chat(messages, tools=[{}, {}], add_generation_prompt=False, thinking=True),
                             "<user>\u00dcber<think>2")

    def test_files_that_are_not_there(self):
        with self.assertRaises(hadal.FileError) as caught:
            hadal.Tokenizer("/nowhere")
        self.assertIsInstance(caught.exception, OSError)
        self.assertIn("/nowhere", str(caught.exception))

    def test_structures_are_those_of_the_library(self):
        # A size that the library refuses makes it say its own; the next calls would read past a shorter one.
        error = _native.ErrorStruct(ctypes.sizeof(_native.ErrorStruct))
        options = _native.EngineOptions()
        options.struct_size = 8
        _native.engine.hadal_engine_load(ctypes.byref(options), ctypes.byref(ctypes.c_void_p()), ctypes.byref(error))
        self.assertIn(f"must be {ctypes.sizeof(_native.EngineOptions)} to", error.message.decode())


class Engines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = hadal.Engine(MODEL, device=DEVICE, max_context=256, max_requests=4, cache_pages=16)

    @classmethod
    def tearDownClass(cls):
        cls.engine.close()

    def test_facts(self):
        config = json.loads((pathlib.Path(MODEL) / "config.json").read_text())
        self.assertEqual(self.engine.vocab_size, config["vocab_size"])
        self.assertEqual(self.engine.max_context, 256)
        self.assertEqual(self.engine.cache_pages, 16)
        self.assertIn(self.engine.device_name, [d.name for d in hadal.devices()])
        plan = hadal.Engine.plan(MODEL, device=DEVICE, max_context=256, max_requests=4, cache_pages=16)
        self.assertEqual(plan["pages"], 16)
        self.assertEqual(plan["weights_bytes"], self.engine.weights_bytes)

    def test_generate_from_text_and_ids(self):
        prompt = "Once upon a time"
        ids = self.engine.tokenizer.encode(prompt)
        by_text = self.engine.generate(prompt, max_new_tokens=20)
        self.assertEqual(by_text.finish, "length")
        self.assertEqual(len(by_text.ids), 20)
        self.assertEqual(by_text.text, self.engine.tokenizer.decode(by_text.ids))
        for same in (ids, ids.tolist(), tuple(ids)):
            again = self.engine.generate(same, max_new_tokens=20)
            np.testing.assert_array_equal(again.ids, by_text.ids)
        # Greedy tokens are the most probable ones, and neighbours change nothing.
        several = self.engine.generate([prompt, "The fox", ids.tolist()], max_new_tokens=20, logprobs=3)
        for one in (several[0], several[2]):
            np.testing.assert_array_equal(one.ids, by_text.ids)
        self.assertEqual([top[0][0] for top in several[1].top_logprobs], several[1].ids.tolist())
        for chosen, top in zip(several[1].logprobs, several[1].top_logprobs):
            self.assertEqual(np.float32(top[0][1]), chosen)
            self.assertEqual(len(top), 3)
            self.assertTrue(0 >= top[0][1] >= top[1][1] >= top[2][1])

    def test_stream(self):
        whole = self.engine.generate("The king", max_new_tokens=12)
        pieces = list(self.engine.stream("The king", max_new_tokens=12))
        self.assertEqual("".join(t.text for t in pieces), whole.text)
        self.assertEqual([t.id for t in pieces], whole.ids.tolist())
        self.assertEqual([t.finish for t in pieces], [""] * 11 + ["length"])
        for _ in self.engine.stream("The king", max_new_tokens=100):
            break  # leaving the loop ends the request
        gc.collect()
        self.assertTrue(self.engine.idle)

    def test_sampling(self):
        def draw(**more):
            return self.engine.generate("The fox", max_new_tokens=10, temperature=1.0, **more).ids.tolist()
        self.assertEqual(draw(seed=1), draw(seed=1))
        self.assertNotEqual(draw(seed=1), draw(seed=2))
        self.assertEqual(draw(top_k=1), self.engine.generate("The fox", max_new_tokens=10).ids.tolist())
        biased = self.engine.generate("The fox", max_new_tokens=3, logit_bias={11: 100.0}, ignore_eos=True)
        self.assertEqual(biased.ids.tolist(), [11, 11, 11])
        self.assertNotIn(11, self.engine.generate("The fox", max_new_tokens=20, logit_bias={11: -100.0}).ids)

    def test_stops(self):
        whole = self.engine.generate("Once upon a time", max_new_tokens=30)
        stop = whole.text[8:11]
        stopped = self.engine.generate("Once upon a time", max_new_tokens=30, stop=stop)
        self.assertEqual(stopped.finish, "stop")
        self.assertEqual(stopped.text, whole.text[:whole.text.index(stop)])
        ids = self.engine.generate("Once upon a time", max_new_tokens=30, stop_ids=[int(whole.ids[4])]).ids
        self.assertEqual(ids[-1], whole.ids[4])
        self.assertLessEqual(len(ids), 5)
        end = self.engine.eos_ids[0]
        ended = self.engine.generate("The fox", logit_bias={end: 100.0})
        self.assertEqual((ended.finish, ended.ids.tolist()), ("stop", [end]))

    def test_masks(self):
        allowed = np.array([5, 40, 2000])
        seen = []

        def mask(generated):
            seen.append(generated.tolist())
            return allowed if len(generated) < 6 else None
        given = self.engine.generate("The fox", max_new_tokens=8, mask=mask)
        self.assertTrue(set(given.ids[:6].tolist()) <= {5, 40, 2000})
        self.assertIn(given.ids[:3].tolist(), seen)
        as_bools = np.zeros(self.engine.vocab_size, bool)
        as_bools[allowed] = True
        again = self.engine.generate("The fox", max_new_tokens=8, mask=lambda g: as_bools if len(g) < 6 else None)
        np.testing.assert_array_equal(again.ids, given.ids)
        # What it raises is the cause of the request's error; others go on.
        beside = self.engine.add("The fox", max_new_tokens=5)

        def broken(generated):
            raise KeyError("no rule")
        with self.assertRaises(hadal.InvalidArgument) as caught:
            self.engine.generate("The fox", mask=broken)
        self.assertIsInstance(caught.exception.__cause__, KeyError)
        tokens = []
        while not self.engine.idle:
            tokens += [t for t in self.engine.step() if t.request == beside]
        self.assertEqual(tokens[-1].finish, "length")

    def test_steps_cancel_and_deadline(self):
        kept = self.engine.add("The fox", max_new_tokens=6)
        dropped = self.engine.add("The hen", max_new_tokens=100)
        late = self.engine.add("The cow", timeout=1e-9)
        self.engine.step()
        self.engine.cancel(dropped)
        finishes = {}
        while not self.engine.idle:
            for token in self.engine.step():
                self.assertNotEqual(token.request, dropped)
                finishes[token.request] = token.finish
        self.assertEqual(finishes[kept], "length")
        self.assertNotIn(finishes.get(late, "deadline"), ("length", ""))

    def test_export_and_import(self):
        whole = self.engine.generate("The king had", max_new_tokens=15)
        number = self.engine.add("The king had", max_new_tokens=15, prefill_only=True)
        tokens = []
        while not self.engine.idle:
            tokens += self.engine.step()
        self.assertEqual(tokens[-1].finish, "exported")
        state = self.engine.export(number)
        with hadal.Engine(MODEL, device=DEVICE, max_context=256, max_requests=1, cache_pages=8, speculate="ngram",
                          always_draft=True, draft_depth=2) as other:
            number = other.import_(state)
            while not other.idle:
                tokens += other.step()
            self.assertEqual([t.id for t in tokens], whole.ids.tolist())
            self.assertGreater(other.stats()["decoded_tokens"], 0)
        with self.assertRaises(hadal.FileError):
            self.engine.import_(b"nonsense")

    def test_warm_up(self):
        self.engine.warm_up()
        with self.assertRaisesRegex(hadal.InvalidArgument, "threads must be at most 1024, got 2000"):
            self.engine.warm_up(threads=2000)

    def test_progress_and_its_errors(self):
        seen = []
        hadal.Engine(MODEL, device=DEVICE, max_context=64, max_requests=1,
                     progress=lambda done, total: seen.append((done, total))).close()
        self.assertEqual(seen[-1][0], seen[-1][1])
        with self.assertRaises(hadal.Cancelled):
            hadal.Engine(MODEL, device=DEVICE, progress=lambda done, total: True)

        def broken(done, total):
            raise KeyError("no")
        with self.assertRaises(KeyError):
            hadal.Engine(MODEL, device=DEVICE, progress=broken)

    def test_what_is_refused(self):
        refusals = [
            ("prompt_tokens must be below the context of 256, got 300", lambda: self.engine.add([5] * 300)),
            ("the prompt must have at least one token", lambda: self.engine.add([])),
            ("token ids must be below", lambda: self.engine.add([99999])),
            ("temperature must be at least 0, got -1", lambda: self.engine.add("a", temperature=-1)),
            ("top_p must be above 0 and at most 1, got 2", lambda: self.engine.add("a", top_p=2)),
            ("logprobs must be at most 20, got 21", lambda: self.engine.add("a", logprobs=21)),
            ("stop: strings must have at least one character", lambda: self.engine.add("a", stop=[""])),
            ("timeout_seconds must be 0 to 1000000000, got -1", lambda: self.engine.add("a", timeout=-1)),
            ("cache_format must be f32, bf16 or fp8, got 'f16'", lambda: hadal.Engine(MODEL, cache_format="f16")),
            ("max_context must be at most the model's", lambda: hadal.Engine(MODEL, max_context=1 << 20)),
            ("a request to export must be running, got 12345", lambda: self.engine.export(12345)),
        ]
        for text, function in refusals:
            with self.subTest(text), self.assertRaises(hadal.InvalidArgument) as caught:
                function()
            self.assertIn(text, str(caught.exception))
        self.assertTrue(self.engine.idle)
        with self.assertRaises(hadal.OutOfMemory):
            hadal.Engine(MODEL, device=DEVICE, cache_pages=4000000000)
        with self.assertRaises(hadal.FileError):
            hadal.Engine("/nowhere")

    def test_closed_engines_say_so(self):
        other = hadal.Engine(MODEL, device=DEVICE, max_context=64, max_requests=1)
        tokenizer = other.tokenizer
        other.add("The fox")
        other.close()
        other.close()
        for function in (other.step, lambda: other.add("a"), lambda: tokenizer.encode("a"), other.stats):
            with self.assertRaisesRegex(hadal.InvalidArgument, "engine: is closed"):
                function()


if __name__ == "__main__":
    unittest.main()
