// Everything that kernels/logit_adjust.cpp and shaders/logit_adjust.comp both know.
#ifndef HADAL_LAYOUT_LOGIT_ADJUST_H_
#define HADAL_LAYOUT_LOGIT_ADJUST_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kLogitAdjustSpecInPlace, 10);  // 1: y is x, and nothing but what changes is written

// A listed row, and a token whose logit it changes; hadal/logit_adjust.h says what the values mean.
struct LogitAdjustRow {
  uint row;
  uint mask;
  uint edits_begin;
  uint edits_end;
  float repetition;
  float inverse_repetition;
  float frequency;
  float presence;
};
HADAL_CHECK_SIZE(LogitAdjustRow, 32);

struct LogitEdit {
  uint id;
  uint prompt;
  uint generated;
  float bias;
};
HADAL_CHECK_SIZE(LogitEdit, 16);

struct LogitAdjustPush {
  uint64_t x;       // [rows, vocab] float
  uint64_t y;       // [rows, vocab] float
  uint64_t listed;  // [listed] LogitAdjustRow
  uint64_t edits;   // [edit_count] LogitEdit
  uint64_t masks;   // [mask_count, ceil(vocab / 32)] uint
  uint rows;
  uint vocab;
  uint x_stride;  // elements
  uint y_stride;
  uint edit_count;
  uint mask_count;
};
HADAL_CHECK_SIZE(LogitAdjustPush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_LOGIT_ADJUST_H_
