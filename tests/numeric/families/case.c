/* Building a case: its random choices and its buffers. Numbers are held as doubles that the buffer's element can hold exactly,
 * so that a reference begins with what the kernel reads. */
#include "tests/numeric/families/case.h"

#include "runtime/base/err.h"

#include <math.h>
#include <string.h>

int case_pick(Case *c, int from, int to) {
  c->random = c->random * 6364136223846793005u + 1442695040888963407u;
  return from + (int)((c->random >> 33) % (uint64_t)(to - from + 1));
}

int case_channels(Case *c) {
  if (c->target.gpu && case_chance(c, 50)) return case_chance(c, 50) ? 4 * case_pick(c, 1, 12) : 8 * case_pick(c, 1, 8);
  return case_chance(c, 85) ? case_pick(c, 1, 20) : case_pick(c, 21, 130);
}

int case_side(Case *c) {
  return case_chance(c, 90) ? case_pick(c, 1, 7) : case_pick(c, 8, 40);
}

Plane case_plane(Case *c, int channels, int height, int width) {
  Plane p = {channels, height, width, channels, LOOP_ELEMENT_F32, 0};
  bool gap = case_chance(c, 35);
  if (!c->target.gpu) {
    if (gap) p.stride += case_pick(c, 1, 9);
    return p;
  }
  p.element = case_chance(c, 80) ? c->activation : case_chance(c, 50) ? LOOP_ELEMENT_F32 : LOOP_ELEMENT_BF16;
  int unit = case_chance(c, 40) ? 8 : case_chance(c, 50) ? 4 : 1;
  if (gap) p.stride = (channels + case_pick(c, 1, 16) + unit - 1) / unit * unit;
  p.unaligned = case_chance(c, 10);
  return p;
}

void case_divide(Case *c, int rows) {
  c->bands = 1;
  if (c->target.gpu && case_chance(c, 60)) {
    c->bands = case_pick(c, 1, rows < 8 ? rows : 8);
    while (rows % c->bands) c->bands--;
  }
  if (c->bands > 1) c->images = 1;
  c->tasks = (c->batch + c->images - 1) / c->images * c->bands;
}

int case_task(const Case *c, int image, int row, int rows) {
  return image / c->images * c->bands + row / (rows / c->bands);
}

/* ---- buffers ---- */

static double rounded(LoopElement element, double value) {
  if (element == LOOP_ELEMENT_BF16) return (double)loop_from_bf16(loop_to_bf16((float)value));
  return element == LOOP_ELEMENT_F32 ? (double)(float)value : value;
}

static CaseBuffer *add(Case *c, LoopElement element, int64_t count) {
  if (c->count == CASE_MOST_BUFFERS) die("a case with too many buffers");
  CaseBuffer *b = &c->buffers[c->count++];
  *b = (CaseBuffer){.element = element, .count = count, .part = count};
  b->tolerance = element == LOOP_ELEMENT_BF16 ? 4e-3 : 1e-5; /* bf16: rounded by up to 2^-8 of the number */
  return b;
}

double *case_input(Case *c, LoopElement element, int64_t count) {
  CaseBuffer *b = add(c, element, count);
  b->value = ARENA_ARRAY(c->arena, double, count);
  for (int64_t i = 0; i < count; i++) b->value[i] = rounded(element, case_pick(c, -1000, 1000) / 1000.0);
  return b->value;
}

double *case_integers(Case *c, LoopElement element, int64_t count, int from, int to) {
  CaseBuffer *b = add(c, element, count);
  b->value = ARENA_ARRAY(c->arena, double, count);
  for (int64_t i = 0; i < count; i++) b->value[i] = case_pick(c, from, to);
  return b->value;
}

double *case_output(Case *c, LoopElement element, int64_t count) {
  CaseBuffer *b = add(c, element, count);
  b->want = ARENA_ARRAY(c->arena, double, count);
  for (int64_t i = 0; i < count; i++) b->want[i] = UNTOUCHED;
  return b->want;
}

const double *case_update(Case *c, LoopElement element, int64_t count, double **want) {
  const double *value = case_input(c, element, count);
  *want = case_last(c)->want = ARENA_ARRAY(c->arena, double, count);
  for (int64_t i = 0; i < count; i++) (*want)[i] = UNTOUCHED;
  return value;
}

CaseBuffer *case_last(Case *c) {
  return &c->buffers[c->count - 1];
}

void case_dense(Case *c) {
  static const double inexact[] = {[PRODUCTS_FP32] = 0, [PRODUCTS_TF32] = 2e-3, [PRODUCTS_BF16] = 1e-2};
  for (int i = 0; i < c->count; i++) c->buffers[i].tolerance = fmax(c->buffers[i].tolerance, inexact[c->target.products]);
}

/* ---- planes ---- */

int64_t plane_size(const Case *c, const Plane *p) {
  return (int64_t)c->batch * p->height * p->width * p->stride - (p->stride - p->channels); /* as a slice of a concatenation */
}

int64_t plane_at(const Plane *p, int image, int y, int x, int channel) {
  return (((int64_t)image * p->height + y) * p->width + x) * p->stride + channel;
}

void plane_clear(const Case *c, const Plane *p, double *want) {
  for (int i = 0; i < c->batch * p->height * p->width; i++)
    for (int ch = 0; ch < p->channels; ch++) want[(int64_t)i * p->stride + ch] = 0;
}

const char *plane_text(const Case *c, const Plane *p) {
  return arena_printf(c->arena, "(%d, %d, %d)%s stride %d", p->height, p->width, p->channels,
                      p->element == LOOP_ELEMENT_BF16 ? " bf16" : "", p->stride);
}

void case_build(Case *c, const void *spec) {
  c->kernel = family_build((Family)c->family, spec, c->arena);
}
