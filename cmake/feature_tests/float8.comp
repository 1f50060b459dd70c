#version 460
// Accepted by a glslc that knows GL_EXT_float_e4m3 (glslang 15.4 and later).
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_float_e4m3 : require
layout(local_size_x = 32) in;
shared uvec4 sh[32];
void main() {
  coopmat<floate4m3_t, gl_ScopeSubgroup, 16, 32, gl_MatrixUseA> a;
  coopMatLoad(a, sh, 0, 2, gl_CooperativeMatrixLayoutRowMajor);
}
