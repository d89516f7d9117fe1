/* Specs in words, and the sizes of the buffers that are activations. A function a kind of spec, chosen by the type that
 * families.def names; specs without one have nothing to say. */
#include "kernels/describe.h"

#include <stdlib.h>
#include <string.h>

typedef void Describe(const void *spec, Text *out);
typedef int64_t Elements(const void *spec, const char *name, int64_t batch);

static bool is(const char *name, const char *other) {
  return strcmp(name, other) == 0;
}

static void add_plane(const Plane *in, Text *out) {
  text_printf(out, "%dx%dx%d", in->channels, in->height, in->width);
}

static void add_planes(const Plane *in, const Plane *to, Text *out) {
  add_plane(in, out);
  if (in->channels == to->channels && in->height == to->height && in->width == to->width) return;
  text_add(out, " to ");
  add_plane(to, out);
}

/* " k3 s2", or " k1x7 s1x2" where the sides differ; a stride of 1 is not said. */
static void add_window(int32_t kernel_y, int32_t kernel_x, int32_t stride_y, int32_t stride_x, Text *out) {
  text_printf(out, kernel_y == kernel_x ? " k%d" : " k%dx%d", kernel_y, kernel_x);
  if (stride_y != 1 || stride_x != 1) text_printf(out, stride_y == stride_x ? " s%d" : " s%dx%d", stride_y, stride_x);
}

static void add_prologue(Prologue prologue, Text *out) {
  if (prologue.affine) text_add(out, " bn");
  if (prologue.relu) text_add(out, " relu");
}

static int64_t plane_elements(const Plane *plane, int64_t batch) {
  return batch * plane->channels * plane->height * plane->width;
}

/* Of kernels that go from x to y or z, and of their gradients. */
static int64_t window_elements(const Plane *in, const Plane *out, const char *name, int64_t batch) {
  if (is(name, "x") || is(name, "dx")) return plane_elements(in, batch);
  return is(name, "y") || is(name, "z") || is(name, "dy") || is(name, "dn") ? plane_elements(out, batch) : 0;
}

/* ---- a pair of functions a kind of spec ---- */

static void describe_conv(const void *spec, Text *out) {
  const ConvSpec *s = spec;
  add_planes(&s->in, &s->out, out);
  add_window(s->kernel_y, s->kernel_x, s->stride_y, s->stride_x, out);
  if (s->dilation > 1) text_printf(out, " dilation %d", s->dilation);
  if (s->groups > 1 && (s->groups != s->in.channels || s->groups != s->out.channels)) text_printf(out, " groups %d", s->groups);
  if (s->shift_y || s->shift_x) text_printf(out, " shift %dx%d", s->shift_y, s->shift_x);
  add_prologue(s->prologue, out);
  if (s->moments) text_add(out, " moments");
}

static int64_t elements_conv(const void *spec, const char *name, int64_t batch) {
  const ConvSpec *s = spec;
  return window_elements(&s->in, &s->out, name, batch);
}

static void describe_block(const void *spec, Text *out) {
  static const char *const gradients[] = {"", " add", " sums"};
  const ConvBlockSpec *s = spec;
  add_planes(&s->in, &s->out, out);
  if (s->pointwise)
    text_add(out, " k1");
  else
    add_window(s->kernel_y, s->kernel_x, s->stride_y, s->stride_x, out);
  if (s->dilation > 1) text_printf(out, " dilation %d", s->dilation);
  add_prologue(s->prologue, out);
  text_add(out, gradients[s->gradient]);
}

static int64_t elements_block(const void *spec, const char *name, int64_t batch) {
  const ConvBlockSpec *s = spec;
  return window_elements(&s->in, &s->out, name, batch);
}

static void describe_pool(const void *spec, Text *out) {
  const PoolSpec *s = spec;
  add_planes(&s->in, &s->out, out);
  add_window(s->kernel_y, s->kernel_x, s->stride_y, s->stride_x, out);
  if (s->bn) text_add(out, " bn");
  if (s->add) text_add(out, " add");
  if (s->moments) text_add(out, " moments");
}

static int64_t elements_pool(const void *spec, const char *name, int64_t batch) {
  const PoolSpec *s = spec;
  return window_elements(&s->in, &s->out, name, batch);
}

static void describe_shift(const void *spec, Text *out) {
  const ShiftSpec *s = spec;
  add_planes(&s->in, &s->out, out);
}

static int64_t elements_shift(const void *spec, const char *name, int64_t batch) {
  const ShiftSpec *s = spec;
  return window_elements(&s->in, &s->out, name, batch);
}

static void describe_moments(const void *spec, Text *out) {
  add_plane(&((const MomentsSpec *)spec)->in, out);
}

static int64_t elements_moments(const void *spec, const char *name, int64_t batch) {
  const MomentsSpec *s = spec;
  return is(name, "x") ? plane_elements(&s->in, batch) : 0;
}

static void describe_map(const void *spec, Text *out) {
  const MapSpec *s = spec;
  int32_t sums = 0;
  for (int32_t i = 0; i < s->output_count; i++) sums += s->outputs[i].sum;
  text_printf(out, s->flat ? "%d" : "%dx%d", s->channels, s->pixels);
  text_printf(out, ": %d inputs, %d steps, %d outputs", s->input_count, s->step_count, s->output_count - sums);
  if (sums) text_printf(out, ", %d sums", sums);
}

/* Inputs are called a0, a1, ..; what is left and not a partial is an output. */
static int64_t elements_map(const void *spec, const char *name, int64_t batch) {
  const MapSpec *s = spec;
  int64_t image = s->flat ? s->channels : batch * s->channels * s->pixels;
  char *end = NULL;
  long input = name[0] == 'a' ? strtol(name + 1, &end, 10) : -1;
  if (end && end != name + 1 && !*end && input >= 0 && input < s->input_count) switch (s->inputs[input].kind) {
    case MAP_TENSOR: return image;
    case MAP_CHANNEL: return s->channels;
    case MAP_SCALAR: return 1;
    case MAP_IMAGE: return batch * s->channels;
    }
  return is(name, "partial") ? 0 : image;
}

static void describe_slots(const void *spec, Text *out) {
  const SlotsSpec *s = spec;
  text_printf(out, "%lld elements", (long long)s->elements);
  if (!s->images) text_printf(out, " of %d slots", s->slots);
}

static void describe_vector(const void *spec, Text *out) {
  const VectorSpec *s = spec;
  if (s->rows) text_printf(out, s->inner ? "%d from " : "%d", s->rows);
  if (s->inner) text_printf(out, "%d", s->inner);
  if (s->count) text_printf(out, "%d scalars", s->count);
}

static void describe_nothing(const void *spec, Text *out) {
  (void)spec, (void)out;
}

static int64_t elements_unknown(const void *spec, const char *name, int64_t batch) {
  (void)spec, (void)name, (void)batch;
  return 0;
}

#define DESCRIBE(Spec)                                                                                                           \
  _Generic((const Spec *)0,                                                                                                      \
      const ConvSpec *: describe_conv,                                                                                           \
      const ConvBlockSpec *: describe_block,                                                                                     \
      const PoolSpec *: describe_pool,                                                                                           \
      const ShiftSpec *: describe_shift,                                                                                         \
      const MomentsSpec *: describe_moments,                                                                                     \
      const MapSpec *: describe_map,                                                                                             \
      const SlotsSpec *: describe_slots,                                                                                         \
      const VectorSpec *: describe_vector,                                                                                       \
      default: describe_nothing)
#define ELEMENTS(Spec)                                                                                                           \
  _Generic((const Spec *)0,                                                                                                      \
      const ConvSpec *: elements_conv,                                                                                           \
      const ConvBlockSpec *: elements_block,                                                                                     \
      const PoolSpec *: elements_pool,                                                                                           \
      const ShiftSpec *: elements_shift,                                                                                         \
      const MomentsSpec *: elements_moments,                                                                                     \
      const MapSpec *: elements_map,                                                                                             \
      default: elements_unknown)

void family_describe(Family family, const void *spec, Text *out) {
  static Describe *const describe[FAMILY_COUNT] = {
#define FAMILY(NAME, cpu, gpu, Spec) DESCRIBE(Spec),
#include "kernels/families.def"
#undef FAMILY
  };
  describe[family](spec, out);
}

int64_t family_elements(Family family, const void *spec, const char *name, int64_t batch) {
  static Elements *const elements[FAMILY_COUNT] = {
#define FAMILY(NAME, cpu, gpu, Spec) ELEMENTS(Spec),
#include "kernels/families.def"
#undef FAMILY
  };
  return elements[family](spec, name, batch);
}
