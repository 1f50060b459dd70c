#version 460
// Accepted by a glslc that knows GL_KHR_cooperative_matrix (glslang 13 and later).
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
layout(local_size_x = 32) in;
shared uvec4 sh[32];
void main() {
  coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a;
  coopMatLoad(a, sh, 0, 2, gl_CooperativeMatrixLayoutRowMajor);
}
