# %% [markdown]
# A tour of hadal in Python: kernels on NumPy arrays, then an engine. Cells begin with "# %%" (Jupyter by jupytext, VS Code,
# Spyder); as a program: python tour.py [MODEL_DIR]. Every cell prints what it did.

# %% Which devices there are
import pathlib
import sys

import numpy as np

import hadal

model = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                     pathlib.Path(__file__).resolve().parents[2] / "examples" / "models" / "fables")
for device in hadal.devices():
    print(f"{device.index}: {device.name}, {device.driver}{', lacks ' + device.missing if device.missing else ''}")

# %% A linear layer as DeepSeek-V3 stores it: FP8 codes, a scale for each 128 x 128 block of the weight
gpu = hadal.Context()
random = np.random.default_rng(0)
x = random.standard_normal((8, 512)).astype(np.float32)
w = random.standard_normal((256, 512)).astype(np.float32) / 16
codes, scales = gpu.fp8_quantize(x)     # activations: a scale for each row and 128 channels
weight, weight_scales = gpu.fp8_quantize(w)
y = gpu.fp8_gemm(codes, scales, weight, weight_scales)
exact = x.astype(np.float64) @ w.T
error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
print(f"x {x.shape} in {codes.nbytes + scales.nbytes} bytes instead of {x.nbytes}")
print(f"y = x w^T {y.shape}: FP8 moves it by {100 * error:.1f} %")

# %% A mixture of experts: each row by the weight of its own expert
counts = [3, 0, 4, 1]
experts = [gpu.fp8_quantize(random.standard_normal((256, 512)).astype(np.float32)) for _ in counts]
stacked, stacked_scales = (np.stack(parts) for parts in zip(*experts))
routed = gpu.grouped_gemm(codes, scales, stacked, stacked_scales, counts)
alone = gpu.fp8_gemm(codes[3:7], scales[3:7], *experts[2])
print(f"rows of {len(counts)} experts {counts}: {routed.shape}; expert 2 alone gives the same bits: "
      f"{np.array_equal(routed[3:7], alone)}")

# %% Multi-head latent attention: the cache keeps one short row per token, whatever the number of heads
heads, rank, rope, seen = 16, 64, 16, 100
cache = random.standard_normal((128, rank + rope)).astype(np.float32)
q_latent = random.standard_normal((1, heads, rank)).astype(np.float32)
q_pe = random.standard_normal((1, heads, rope)).astype(np.float32)
o = gpu.mla_decode(q_latent, q_pe, cache, block_tables=[[1, 0]], kv_lens=[seen], scale=0.1)
print(f"{heads} heads over {seen} tokens of {cache[0].nbytes} bytes each: {o.shape}")
gpu.close()

# %% What a checkpoint would need
plan = hadal.Engine.plan(model, max_context=512, max_requests=4)
print(f"weights {plan['weights_bytes'] >> 10} KiB, cache of {plan['pages']} pages of {plan['page_bytes'] >> 10} KiB; "
      f"the longest context that fits: {plan['longest_context']}")

# %% Text from it
engine = hadal.Engine(model, max_context=512, max_requests=4)
print(engine)
print(engine.generate("Once upon a time", max_new_tokens=40).text)

# %% As it comes, sampled, until a full stop
for token in engine.stream("The king", max_new_tokens=60, temperature=0.8, top_p=0.9, seed=4, stop=["."]):
    print(token.text, end="", flush=True)
print(f"  [{token.finish}]")

# %% Several at once; each gets what it would get alone
prompts = ["One day a fox", "The two sisters", "In the deep forest"]
for prompt, answer in zip(prompts, engine.generate(prompts, max_new_tokens=15, logprobs=0)):
    print(f"{prompt}|{answer.text!r}, {np.exp(answer.logprobs.mean()):.2f} probable a token")

# %% Under a rule: which tokens may follow is asked of a function
tokenizer = engine.tokenizer
digits = [i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).isdigit()]
print("a number:", engine.generate("He counted ", max_new_tokens=4, mask=lambda generated: digits).text)

# %% Errors name the argument
try:
    engine.generate("Once", temperature=-1)
except hadal.InvalidArgument as error:
    print(f"{type(error).__name__}: {error}")
stats = engine.stats()
print(f"{stats['steps']} steps, {stats['prefilled_tokens']} tokens prefilled, {stats['decoded_tokens']} decoded")
engine.close()
