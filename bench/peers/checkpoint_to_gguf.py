#!/usr/bin/env python3
"""A DeepSeek-V3 checkpoint as the GGUF that llama.cpp runs, for comparisons.

Needs numpy and gguf (Debian: python3-gguf), not PyTorch or transformers, which llama.cpp's own
converter imports. Writes the `deepseek2` architecture as that converter does: experts of a layer
in one tensor, kv_b_proj split into k_b (transposed) and v_b per head, FP8 weights multiplied by
their block scales, norms, gate and its bias in float32. MTP layers are left out: llama.cpp does
not run them. With tokenizer.json the vocabulary goes along, so that text can be continued.

    checkpoint_to_gguf.py CHECKPOINT_DIR OUT.gguf --type q8_0
"""
import argparse
import json
import mmap
import re
from pathlib import Path

import gguf
import numpy as np

DTYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F8_E4M3": np.uint8}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
              "bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def e4m3_table():
    """The value of each of the 256 codes of e4m3fn."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    value = np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    value[(code & 127) == 127] = np.nan
    return np.where(code & 128, -value, value).astype(np.float32)


E4M3 = e4m3_table()


class Checkpoint:
    """The tensors of all *.safetensors of a directory, as float32 without block scales."""

    def __init__(self, directory):
        self.tensors = {}  # name -> (mapping, type, shape, begin)
        for file in sorted(Path(directory).glob("*.safetensors")):
            with open(file, "rb") as f:
                data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            header = int.from_bytes(data[:8], "little")
            for name, entry in json.loads(data[8:8 + header]).items():
                if name != "__metadata__":
                    begin = 8 + header + entry["data_offsets"][0]
                    self.tensors[name] = (data, entry["dtype"], entry["shape"], begin)

    def plain(self, name):
        data, dtype, shape, begin = self.tensors[name]
        count = int(np.prod(shape))
        raw = np.frombuffer(data, DTYPES[dtype], count, begin).reshape(shape)
        if dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return E4M3[raw] if dtype == "F8_E4M3" else raw.astype(np.float32)

    def weight(self, name):
        value = self.plain(name)
        scale = name + "_scale_inv"
        if scale not in self.tensors:
            return value
        rows, columns = value.shape
        blocks = np.repeat(np.repeat(self.plain(scale), 128, 0), 128, 1)
        return value * blocks[:rows, :columns]


def add_parameters(writer, c, file_type):
    heads, rope = c["num_attention_heads"], c.get("rope_scaling") or {}
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)  # llama.cpp runs MLA absorbed, as attention over one key head
    writer.add_layer_norm_rms_eps(c.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(c.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(c["qk_rope_head_dim"])
    writer.add_vocab_size(c["vocab_size"])
    if c.get("q_lora_rank"):
        writer.add_q_lora_rank(c["q_lora_rank"])
    writer.add_kv_lora_rank(c["kv_lora_rank"])
    writer.add_key_length(c["kv_lora_rank"] + c["qk_rope_head_dim"])
    writer.add_value_length(c["kv_lora_rank"])
    writer.add_key_length_mla(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
    writer.add_value_length_mla(c["v_head_dim"])
    writer.add_leading_dense_block_count(c["first_k_dense_replace"])
    writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    writer.add_expert_count(c["n_routed_experts"])
    writer.add_expert_used_count(c["num_experts_per_tok"])
    writer.add_expert_shared_count(c["n_shared_experts"])
    writer.add_expert_group_count(c["n_group"])
    writer.add_expert_group_used_count(c["topk_group"])
    writer.add_expert_weights_scale(c["routed_scaling_factor"])
    writer.add_expert_weights_norm(c["norm_topk_prob"])
    gating = gguf.ExpertGatingFuncType
    softmax = c.get("scoring_func", "sigmoid") == "softmax"
    writer.add_expert_gating_func(gating.SOFTMAX if softmax else gating.SIGMOID)
    if rope.get("type", rope.get("rope_type")) == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast", 32))
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow", 1))
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope.get("mscale_all_dim", 0))
    writer.add_file_type(FILE_TYPES[file_type])


def add_vocabulary(writer, directory, size):
    file = directory / "tokenizer.json"
    if not file.exists():
        writer.add_tokenizer_model("none")
        return
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    types = gguf.TokenType
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [types.UNUSED] * size
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i], kinds[i] = text, types.NORMAL
    for added in tokenizer.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = types.CONTROL if added["special"] else types.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-v3")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    for key, add in (("bos_token", writer.add_bos_token_id), ("eos_token", writer.add_eos_token_id)):
        token = config.get(key)
        token = token["content"] if isinstance(token, dict) else token
        if token in tokens:
            add(tokens.index(token))
    writer.add_add_bos_token(bool(config.get("add_bos_token")))


def tensors(checkpoint, c):
    """GGUF name and float32 value of every tensor."""
    weight = checkpoint.weight
    yield "token_embd.weight", weight("model.embed_tokens.weight")
    yield "output_norm.weight", weight("model.norm.weight")
    if not c.get("tie_word_embeddings"):
        yield "output.weight", weight("lm_head.weight")
    renamed = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
               "self_attn.q_proj": "attn_q", "self_attn.q_a_proj": "attn_q_a", "self_attn.q_b_proj": "attn_q_b",
               "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
               "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.o_proj": "attn_output",
               "mlp.gate": "ffn_gate_inp", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
               "mlp.down_proj": "ffn_down", "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
               "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp"}
    heads, nope, v_dim = c["num_attention_heads"], c["qk_nope_head_dim"], c["v_head_dim"]
    for layer in range(c["num_hidden_layers"]):
        source, target = f"model.layers.{layer}.", f"blk.{layer}."
        for theirs, ours in renamed.items():
            if f"{source}{theirs}.weight" in checkpoint.tensors:
                yield f"{target}{ours}.weight", weight(f"{source}{theirs}.weight")
        kv_b = weight(source + "self_attn.kv_b_proj.weight").reshape(heads, nope + v_dim, -1)
        yield target + "attn_k_b.weight", np.ascontiguousarray(kv_b[:, :nope].transpose(0, 2, 1))
        yield target + "attn_v_b.weight", np.ascontiguousarray(kv_b[:, nope:])
        if source + "mlp.gate.weight" not in checkpoint.tensors:
            continue
        bias = source + "mlp.gate.e_score_correction_bias"
        if bias in checkpoint.tensors:
            yield target + "exp_probs_b.bias", weight(bias)
        for part in ("gate", "up", "down"):
            experts = [weight(f"{source}mlp.experts.{e}.{part}_proj.weight")
                       for e in range(c["n_routed_experts"])]
            yield f"{target}ffn_{part}_exps.weight", np.stack(experts)


def stored_type(name, value, wanted):
    """What the tensor is stored as: llama.cpp keeps vectors and the gate in float32."""
    if value.ndim == 1 or re.search(r"norm|ffn_gate_inp", name):
        return gguf.GGMLQuantizationType.F32
    if wanted == "q8_0" and value.shape[-1] % 32:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[wanted.upper()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, default="q8_0")
    arguments = parser.parse_args()
    config = json.loads((arguments.checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(arguments.output, "deepseek2")
    writer.add_name(arguments.checkpoint.name)
    add_parameters(writer, config, arguments.type)
    add_vocabulary(writer, arguments.checkpoint, config["vocab_size"])
    for name, value in tensors(Checkpoint(arguments.checkpoint), config):
        kind = stored_type(name, value, arguments.type)
        writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
