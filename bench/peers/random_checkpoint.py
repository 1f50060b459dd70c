#!/usr/bin/env python3
"""A DeepSeek-V3 checkpoint of 35 million random bfloat16 weights, for comparisons of speed.

Needs numpy only. The sizes have the published proportions of attention (latents of 512 and 64
channels, heads of 128) around a small hidden size. Weights are normal with standard deviation
0.02, as transformers initialises them, norms are one, the gate's bias is zero.

    random_checkpoint.py OUT_DIR
"""
import json
import sys
from pathlib import Path

import numpy as np

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 256,
    "num_hidden_layers": 4, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 256, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "num_nextn_predict_layers": 0, "hidden_act": "silu",
    "attention_bias": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None,
    "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 1,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}


def shapes(c):
    """Name and shape of every tensor."""
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, v_dim, latent = (c[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (c["vocab_size"], hidden)

    def mlp(name, width):
        yield name + ".gate_proj.weight", (width, hidden)
        yield name + ".up_proj.weight", (width, hidden)
        yield name + ".down_proj.weight", (hidden, width)

    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        attention = layer + "self_attn."
        yield attention + "q_a_proj.weight", (c["q_lora_rank"], hidden)
        yield attention + "q_a_layernorm.weight", (c["q_lora_rank"],)
        yield attention + "q_b_proj.weight", (heads * (nope + rope), c["q_lora_rank"])
        yield attention + "kv_a_proj_with_mqa.weight", (latent + rope, hidden)
        yield attention + "kv_a_layernorm.weight", (latent,)
        yield attention + "kv_b_proj.weight", (heads * (nope + v_dim), latent)
        yield attention + "o_proj.weight", (hidden, heads * v_dim)
        if i < c["first_k_dense_replace"]:
            yield from mlp(layer + "mlp", c["intermediate_size"])
            continue
        width = c["moe_intermediate_size"]
        yield layer + "mlp.gate.weight", (c["n_routed_experts"], hidden)
        yield layer + "mlp.gate.e_score_correction_bias", (c["n_routed_experts"],)
        yield from mlp(layer + "mlp.shared_experts", c["n_shared_experts"] * width)
        for expert in range(c["n_routed_experts"]):
            yield from mlp(f"{layer}mlp.experts.{expert}", width)


def to_bf16(value):
    bits = value.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    directory, random = Path(sys.argv[1]), np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    header, parts, offset = {}, [], 0
    for name, shape in shapes(CONFIG):
        if name.endswith("norm.weight"):
            value, dtype = to_bf16(np.ones(shape)), "BF16"
        elif name.endswith("bias"):
            value, dtype = np.zeros(shape, np.float32), "F32"
        else:
            value, dtype = to_bf16(random.normal(0.0, 0.02, shape)), "BF16"
        parts.append(value.tobytes())
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(parts[-1])]}
        offset += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=1))
    print("parameters:", sum(int(np.prod(shape)) for _, shape in shapes(CONFIG)))


if __name__ == "__main__":
    main()
