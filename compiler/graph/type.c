/* Types of values: a shape with or without the leading B. */
#include "compiler/graph/graph_private.h"

#include <stdio.h>

Type type_tensor(int rank, const int32_t *dims, bool batched) {
  if (rank < 0 || rank > MAX_RANK) die("a tensor of rank %d", rank);
  Type type = {.element = ELEMENT_F32, .batched = batched, .rank = (uint8_t)rank};
  for (int i = 0; i < rank; i++) type.dims[i] = dims[i];
  return type;
}

Type type_scalar(void) {
  return type_tensor(0, NULL, false);
}

bool type_equal(Type a, Type b) {
  if (a.element != b.element || a.batched != b.batched || a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; i++)
    if (a.dims[i] != b.dims[i]) return false;
  return true;
}

int64_t type_elements(Type type, int64_t batch) {
  int64_t elements = type.batched ? batch : 1;
  for (int i = 0; i < type.rank; i++) elements *= type.dims[i];
  return elements;
}

bool type_valid(Type type) {
  int64_t elements = 1;
  if (type.rank > MAX_RANK || (type.element != ELEMENT_F32 && type.element != ELEMENT_I32)) return false;
  for (int i = 0; i < type.rank; i++) {
    if (type.dims[i] < 1) return false;
    elements *= type.dims[i];
    if (elements > INT32_MAX) return false;
  }
  return true;
}

TypeText type_text(Type type) {
  TypeText out;
  size_t size = sizeof out.text;
  size_t at = (size_t)snprintf(out.text, size, "%s[%s", type.element == ELEMENT_I32 ? "i32" : "f32", type.batched ? "B" : "");
  for (int i = 0; i < type.rank && i < MAX_RANK; i++)
    at += (size_t)snprintf(out.text + at, size - at, "%s%d", i || type.batched ? ", " : "", type.dims[i]);
  const char *layout = layout_text((Layout)type.layout);
  snprintf(out.text + at, size - at, "]%s%s", layout ? " " : "", layout ? layout : "");
  return out;
}
