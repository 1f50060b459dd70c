# The fuzz targets, as parsers.cpp, capi.cpp and engine.cpp list them (ParsersFuzz, CapiFuzz and CapiEngineFuzz compare).
set(HADAL_FUZZ_PARSERS config generation_config safetensors tokenizer chat_template json_schema sequence_state)
set(HADAL_FUZZ_CAPI fp8_quantize fp8_gemm fp8_grouped_gemm bf16_gemm bf16_grouped_gemm rms_norm swiglu swiglu_tiles
    rope embedding moe_gate moe_permute moe_combine moe_tiles mla_cache_write mla_cache_read mla_decode mla_prefill
    mla_absorb sample logit_adjust top_logprobs sizes query)
set(HADAL_FUZZ_ENGINE tokenizer_text tokenizer_chat engine_facts engine_options engine_warm_up engine_request
    engine_import)
