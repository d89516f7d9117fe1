/* Running a case with the Loop IR's interpreter, and comparing buffers: with the reference in norm, and with what another
 * executor left bit for bit. */
#include "tests/numeric/families/case.h"

#include <math.h>
#include <string.h>

static void encode(const CaseBuffer *b, void *data, int64_t i, double value) {
  switch (b->element) {
  case LOOP_ELEMENT_F32: ((float *)data)[i] = (float)value; break;
  case LOOP_ELEMENT_F64: ((double *)data)[i] = value; break;
  case LOOP_ELEMENT_BF16: ((uint16_t *)data)[i] = loop_to_bf16((float)value); break;
  case LOOP_ELEMENT_I32: ((int32_t *)data)[i] = (int32_t)value; break;
  case LOOP_ELEMENT_U8: ((uint8_t *)data)[i] = (uint8_t)value; break;
  }
}

static double decode(const CaseBuffer *b, const void *data, int64_t i) {
  switch (b->element) {
  case LOOP_ELEMENT_F32: return (double)((const float *)data)[i];
  case LOOP_ELEMENT_F64: return ((const double *)data)[i];
  case LOOP_ELEMENT_BF16: return (double)loop_from_bf16(((const uint16_t *)data)[i]);
  case LOOP_ELEMENT_I32: return ((const int32_t *)data)[i];
  case LOOP_ELEMENT_U8: return ((const uint8_t *)data)[i];
  }
  return 0;
}

static size_t bytes_of(const CaseBuffer *b) {
  return (size_t)b->count * (size_t)loop_element_bytes(b->element);
}

static const char *name_of(const Case *c, int buffer) {
  return c->kernel->arrays.data[buffer].name;
}

/* ---- the interpreter ---- */

static bool check_limits(const Case *c, Err *err) {
  const LoopKernel *k = c->kernel;
  if (!c->target.gpu) {
    if (k->lanes != c->target.lanes) return err_set(err, "%d lanes for a CPU of %d", k->lanes, c->target.lanes);
    return loop_fits_cpu(k) || err_set(err, "the kernel does not fit a CPU");
  }
  if (k->lanes % 32 || k->lanes > c->target.lanes || k->lanes <= 0)
    return err_set(err, "%d threads, where a multiple of 32 up to %d is wanted", k->lanes, c->target.lanes);
  int64_t shared = loop_scratch(k, NULL);
  if (shared > GPU_MOST_SHARED)
    return err_set(err, "%lld bytes of shared arrays, where %d are the most", (long long)shared, GPU_MOST_SHARED);
  return true;
}

static bool check_buffers(const Case *c, Err *err) {
  if (c->kernel->buffer_count != c->count)
    return err_set(err, "the kernel has %d buffers, where %d are wanted", c->kernel->buffer_count, c->count);
  for (int i = 0; i < c->count; i++) {
    const LoopArray *array = &c->kernel->arrays.data[i];
    if (array->element != c->buffers[i].element)
      return err_set(err, "buffer %s is of another element than in the spec", array->name);
    if ((array->space == LOOP_IN) != (c->buffers[i].want == NULL))
      return err_set(err, "buffer %s is %s", array->name, array->space == LOOP_IN ? "only read" : "written");
    if (array->space == LOOP_OUT && c->buffers[i].value) return err_set(err, "buffer %s is not read", array->name);
  }
  return true;
}

/* print -> parse -> print is the identity. */
static bool check_text(const Case *c, Err *err) {
  Text first = {0}, second = {0};
  loop_print(c->kernel, &first);
  LoopKernel *again = loop_parse(first.data, first.length, c->arena, err);
  if (again) loop_print(again, &second);
  bool same = again && first.length == second.length && memcmp(first.data, second.data, first.length) == 0;
  if (again && !same) err_set(err, "its text parsed and printed is another one");
  text_free(&first);
  text_free(&second);
  if (again) loop_free_tables(again);
  return same;
}

static void lay_out(Case *c) {
  for (int i = 0; i < c->count; i++) {
    CaseBuffer *b = &c->buffers[i];
    b->before = arena_alloc(c->arena, bytes_of(b));
    for (int64_t j = 0; j < b->count; j++) encode(b, b->before, j, b->value ? b->value[j] : UNTOUCHED);
    b->after = arena_alloc(c->arena, bytes_of(b));
    memcpy(b->after, b->before, bytes_of(b));
  }
}

bool case_interpret(Case *c, Err *err) {
  lay_out(c);
  LoopBuffer buffers[CASE_MOST_BUFFERS];
  for (int i = 0; i < c->count; i++) buffers[i] = (LoopBuffer){c->buffers[i].after, c->buffers[i].count};
  bool ok = loop_verify(c->kernel, err) && check_limits(c, err) && check_buffers(c, err) && check_text(c, err);
  for (int task = c->tasks - 1; ok && task >= 0; task--) ok = loop_interpret(c->kernel, buffers, c->batch, task, task + 1, err);
  return ok || err_wrap(err, "%s", c->text);
}

/* ---- the reference ---- */

static bool part_matches(const Case *c, int buffer, int64_t from, Err *err) {
  const CaseBuffer *b = &c->buffers[buffer];
  double error = 0, norm = 0, worst = -1;
  int64_t at = from, below = from + b->part < b->count ? from + b->part : b->count;
  for (int64_t i = from; i < below; i++) {
    double got = decode(b, b->after, i), difference = fabs(got - b->want[i]);
    if (b->want[i] == UNTOUCHED) {
      if (got == decode(b, b->before, i)) continue;
      return err_set(err, "%s: %s[%lld] was written (%g)", c->text, name_of(c, buffer), (long long)i, got);
    }
    error += difference * difference;
    norm += b->want[i] * b->want[i];
    if (!(difference <= worst)) worst = difference, at = i; /* also where it is not a number */
  }
  error = sqrt(error);
  norm = fmax(sqrt(norm), b->spread);
  if (error <= b->tolerance * norm + 1e-6) return true;
  return err_set(err, "%s: %s is off by %.2g of its norm %.3g; worst is [%lld]: %.7g where %.7g is wanted", c->text,
                 name_of(c, buffer), error / norm, norm, (long long)at, decode(b, b->after, at), b->want[at]);
}

bool case_matches_reference(const Case *c, Err *err) {
  for (int i = 0; i < c->count; i++) {
    const CaseBuffer *b = &c->buffers[i];
    if (!b->want && memcmp(b->after, b->before, bytes_of(b)) != 0)
      return err_set(err, "%s: %s was written", c->text, name_of(c, i));
    for (int64_t from = 0; b->want && from < b->count; from += b->part)
      if (!part_matches(c, i, from, err)) return false;
  }
  return true;
}

/* ---- other executors ---- */

void **case_copies(const Case *c) {
  void **copies = memory_alloc((size_t)(c->count + 1) * sizeof *copies);
  for (int i = 0; i < c->count; i++) {
    const CaseBuffer *b = &c->buffers[i];
    if (posix_memalign(&copies[i], 64, bytes_of(b)) != 0) die("no memory for a test's buffer");
    memcpy(copies[i], b->before, bytes_of(b));
  }
  return copies;
}

void case_copies_free(const Case *c, void **copies) {
  for (int i = 0; i < c->count; i++) free(copies[i]);
  free(copies);
}

static bool has(const Case *c, LoopOp op) {
  for (size_t i = 0; i < c->kernel->code.count; i++)
    if (c->kernel->code.data[i].op == op) return true;
  return false;
}

bool case_is_exact(const Case *c) {
  return !has(c, LOOP_EXP) && !has(c, LOOP_LOG) && !has(c, LOOP_MMA);
}

static bool nearly(const CaseBuffer *b, const void *got, bool any_order) {
  double error = 0, norm = 0, tolerance = b->element == LOOP_ELEMENT_BF16 ? 8e-3 : any_order ? 1e-5 : 1e-6;
  for (int64_t i = 0; i < b->count; i++) {
    double x = decode(b, got, i), y = decode(b, b->after, i);
    if (!any_order && !(fabs(x - y) <= tolerance * (1 + fabs(y)))) return false;
    error += (x - y) * (x - y);
    norm += y * y;
  }
  return !any_order || sqrt(error) <= tolerance * fmax(sqrt(norm), b->spread) + 1e-6;
}

bool case_same(const Case *c, void *const *buffers, Err *err) {
  bool exact = case_is_exact(c), any_order = has(c, LOOP_MMA);
  for (int i = 0; i < c->count; i++) {
    const CaseBuffer *b = &c->buffers[i];
    if (exact || !b->want ? memcmp(buffers[i], b->after, bytes_of(b)) == 0 : nearly(b, buffers[i], any_order)) continue;
    int64_t at = 0, bytes = loop_element_bytes(b->element);
    while (at < b->count - 1 && !memcmp((char *)buffers[i] + at * bytes, (char *)b->after + at * bytes, (size_t)bytes)) at++;
    return err_set(err, "%s: %s differs from the interpreter's, first at [%lld]: %.9g where it left %.9g", c->text, name_of(c, i),
                   (long long)at, decode(b, buffers[i], at), decode(b, b->after, at));
  }
  return true;
}
