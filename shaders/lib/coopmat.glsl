// Extensions of the cooperative-matrix paths, included first. Memory scope semantics select the Vulkan
// memory model, which cooperative matrices demand.
#define HADAL_COOPMAT 1
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef HADAL_FLOAT8
#extension GL_EXT_float_e4m3 : require
#endif
#include "prelude.glsl"
