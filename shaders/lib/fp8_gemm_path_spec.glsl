// Specialisation constants of the GPU paths of fp8_gemm and fp8_grouped_gemm.
layout(constant_id = kFp8PathSpecTileM) const uint TILE_M = 64;
layout(constant_id = kFp8PathSpecTileN) const uint TILE_N = 64;
layout(constant_id = kFp8PathSpecDBf16) const uint D_BF16 = 0;
layout(constant_id = kFp8PathSpecBlockK) const uint BLOCK_K = 32;
layout(constant_id = kFp8PathSpecPartM) const uint PART_M = 32;
layout(constant_id = kFp8PathSpecPartN) const uint PART_N = 32;
layout(constant_id = kFp8PathSpecInvocations) const uint INVOCATIONS = 128;
#ifdef HADAL_COOPMAT
layout(constant_id = kFp8PathSpecCoopM) const uint COOP_M = 16;
layout(constant_id = kFp8PathSpecCoopN) const uint COOP_N = 16;
layout(constant_id = kFp8PathSpecCoopK) const uint COOP_K = 16;
#endif

layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer Uvec4In { uvec4 v; };
