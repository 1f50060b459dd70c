// Floats as unsigned integers of the same order, so that selections compare, search and break ties
// exactly, whatever a driver does to NaN, -0 or subnormals.
#ifndef HADAL_ORDER_KEY_GLSL_
#define HADAL_ORDER_KEY_GLSL_

const uint kOrderKeyMinusInfinity = 0x007fffffu;  // the smallest key; 0 is free for "taken"

// From the bits of a float. NaN counts as -infinity, -0 as +0.
uint order_key(uint bits) {
  uint magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return kOrderKeyMinusInfinity;
  if (magnitude == 0) bits = 0;
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
float order_key_value(uint key) {
  return uintBitsToFloat((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

#endif  // HADAL_ORDER_KEY_GLSL_
