/* The groups of kernel_bench: ConvBlocks and their gradients, preprocessing convolutions, a stem, each fused and in parts. Shapes
 * are those of a network of 16, 32 and 64 channels on 32 x 32 images; a stride of 2 is a reduction's. A tensor is a letter from
 * `a` on; a launch's string names its buffers. */
#include "tests/bench/kernels.h"

#include <stdio.h>
#include <string.h>

static void add_part(const Bench *b, const Group *g, Way *way, Family family, const void *spec, const char *tensors) {
  Part *part = &way->parts[way->count++];
  part->ir = family_build(family, spec, b->arena);
  part->tasks = (g->batch + g->images - 1) / g->images;
  for (; *tensors; tensors++) part->tensor[part->buffers++] = *tensors - 'a';
}

static Way *add_way(Group *g, const char *name) {
  Way *way = &g->ways[g->count++];
  *way = (Way){.name = name, .task = 1e9, .batch = 1e9, .cold = 1e9};
  return way;
}

static Plane plane(int channels, int side) {
  return (Plane){.channels = channels, .stride = channels, .height = side, .width = side};
}

static int images_of(int side) {
  return side >= 32 ? 1 : side >= 16 ? 3 : 7;
}

/* ---- convolutions ---- */

typedef struct Shape {
  int kernel, dilation, stride, in, out, side; /* the output's side */
  bool affine;                                 /* BN before the ReLU */
} Shape;

static ConvSpec conv_spec(const Bench *b, const Shape *s, int groups) {
  ConvSpec c = {.target = b->kernel, .images = images_of(s->side), .bands = 1, .groups = groups, .dilation = s->dilation};
  c.in = plane(s->in, s->side * s->stride);
  c.out = plane(s->out, s->side);
  c.kernel_y = c.kernel_x = s->kernel;
  c.stride_y = c.stride_x = s->stride;
  c.pad_y = c.pad_x = s->dilation * (s->kernel / 2);
  return c;
}

/* a x, b w, c y, d partial, e dy, f dx, g partial of dw */
static void conv_sizes(Group *g, const Shape *s, int groups) {
  int64_t tasks = (g->batch + g->images - 1) / g->images, in_side = s->side * s->stride;
  g->size[0] = g->size[5] = g->batch * in_side * in_side * s->in;
  g->size[1] = (int64_t)s->kernel * s->kernel * s->in / groups * s->out;
  g->size[2] = g->size[4] = g->batch * s->side * s->side * s->out;
  g->size[3] = tasks * 3 * s->out;
  g->size[6] = tasks * g->size[1];
  g->flop = 2.0 * s->side * s->side * (double)g->size[1];
}

static void describe_conv(const Bench *b, const Shape *s, Group *g) {
  ConvSpec c = conv_spec(b, s, 1), alone;
  c.prologue.relu = true;
  alone = c;
  c.moments = true;
  MomentsSpec moments = {.target = b->kernel, .images = c.images, .bands = 1, .in = c.out};
  conv_sizes(g, s, 1);
  add_part(b, g, add_way(g, "fused"), FAMILY_CONV, &c, "abcd");
  Way *parts = add_way(g, "parts");
  add_part(b, g, parts, FAMILY_CONV, &alone, "abc");
  add_part(b, g, parts, FAMILY_MOMENTS, &moments, "cd");
}

static void describe_gradient(const Bench *b, const Shape *s, Group *g, bool weight) {
  ConvSpec c = conv_spec(b, s, 1);
  conv_sizes(g, s, 1);
  if (weight) c.prologue.relu = true;
  add_part(b, g, add_way(g, weight ? "weight" : "input"), weight ? FAMILY_CONV_GRAD_WEIGHT : FAMILY_CONV_GRAD_INPUT, &c,
           weight ? "eag" : "ebf");
}

/* ---- ConvBlocks ---- */

static ConvBlockSpec block_spec(const Bench *b, const Shape *s) {
  ConvSpec c = conv_spec(b, s, s->in);
  ConvBlockSpec spec = {.target = b->kernel, .images = c.images, .in = c.in, .out = c.out, .dilation = s->dilation};
  spec.kernel_y = spec.kernel_x = s->kernel;
  spec.stride_y = spec.stride_x = s->stride;
  spec.pad_y = spec.pad_x = c.pad_y;
  spec.prologue = (Prologue){.affine = s->affine, .relu = true};
  spec.gradient = s->affine ? BLOCK_SUMS : BLOCK_STORE;
  spec.dn_stride = s->out, spec.dx_stride = s->in;
  return spec;
}

/* a x, b wd, c wp, d z, e partial, f d, g dn, h coefficients, i dx, j partial of dwd, k of dwp, l dz, m dd, n da, o scale, p
 * mean, q partial of the sums of dx */
static void block_sizes(Group *g, const Shape *s) {
  int64_t tasks = (g->batch + g->images - 1) / g->images, in_side = s->side * s->stride;
  int64_t in = g->batch * in_side * in_side * s->in, pixels = g->batch * s->side * s->side;
  const int64_t size[] = {in,
                          (int64_t)s->kernel * s->kernel * s->in,
                          (int64_t)s->in * s->out,
                          pixels * s->out,
                          tasks * 3 * s->out,
                          pixels * s->in,
                          pixels * s->out,
                          4 * s->out,
                          in,
                          tasks * s->kernel * s->kernel * s->in,
                          tasks * s->in * s->out,
                          pixels * s->out,
                          pixels * s->in,
                          in,
                          s->in,
                          s->in,
                          tasks * 2 * s->in};
  memcpy(g->size, size, sizeof size);
  g->flop = 2.0 * s->side * s->side * s->in * (s->out + s->kernel * s->kernel);
}

static void describe_block(const Bench *b, const Shape *shape, Group *g) {
  ConvBlockSpec s = block_spec(b, shape);
  Shape one = {1, 1, 1, shape->in, shape->out, shape->side, false};
  ConvSpec depthwise = conv_spec(b, shape, shape->in), pointwise = conv_spec(b, &one, 1);
  depthwise.prologue = s.prologue;
  MomentsSpec moments = {.target = b->kernel, .images = s.images, .bands = 1, .in = s.out};
  block_sizes(g, shape);
  add_part(b, g, add_way(g, "fused"), FAMILY_CONV_BLOCK, &s, s.prologue.affine ? "aopbcde" : "abcde");
  Way *parts = add_way(g, "parts");
  add_part(b, g, parts, FAMILY_CONV, &depthwise, s.prologue.affine ? "aopbf" : "abf");
  add_part(b, g, parts, FAMILY_CONV, &pointwise, "fcd");
  add_part(b, g, parts, FAMILY_MOMENTS, &moments, "de");
}

static MapInput map_tensor(int channels, bool tensor) {
  return (MapInput){.kind = tensor ? MAP_TENSOR : MAP_CHANNEL, .stride = channels};
}

/* dz = c0 dn + (c1 (z - c2) + c3) */
static MapSpec map_dz(const ConvBlockSpec *s) {
  int channels = s->out.channels;
  MapSpec m = {.target = s->target, .images = s->images, .bands = 1, .channels = channels, .input_count = 6, .step_count = 3};
  m.pixels = s->out.height * s->out.width;
  for (int i = 0; i < 6; i++) m.inputs[i] = map_tensor(channels, i < 2);
  for (int i = 2; i < 6; i++) m.inputs[i].offset = (i - 2) * channels;
  m.steps[0] = (MapStep){.op = LOOP_SUB, .a = 1, .b = 4};
  m.steps[1] = (MapStep){.op = LOOP_FMA, .a = 3, .b = 6, .c = 5};
  m.steps[2] = (MapStep){.op = LOOP_FMA, .a = 2, .b = 0, .c = 7};
  m.output_count = 1;
  m.outputs[0] = (MapOutput){.value = 8, .stride = channels};
  return m;
}

/* dx = x > 0 ? da : 0; of an affine prologue (x - mean) * scale > 0, and the sums of dx and of dx times that. */
static MapSpec map_mask(const ConvBlockSpec *s) {
  int channels = s->in.channels;
  MapSpec m = {.target = s->target, .images = s->images, .bands = 1, .channels = channels, .input_count = 4, .step_count = 6};
  m.pixels = s->in.height * s->in.width;
  for (int i = 0; i < 4; i++) m.inputs[i] = map_tensor(channels, i < 2);
  m.steps[0] = (MapStep){.op = LOOP_SUB, .a = 0, .b = 3};
  m.steps[1] = (MapStep){.op = LOOP_MUL, .a = 4, .b = 2};
  m.steps[2] = (MapStep){.op = LOOP_FLOAT, .value = 0};
  m.steps[3] = (MapStep){.op = LOOP_GT, .a = s->prologue.affine ? 5 : 0, .b = 6};
  m.steps[4] = (MapStep){.op = LOOP_SELECT, .a = 7, .b = 1, .c = 6};
  m.steps[5] = (MapStep){.op = LOOP_MUL, .a = 8, .b = 5};
  m.output_count = s->prologue.affine ? 3 : 1;
  m.outputs[0] = (MapOutput){.value = 8, .stride = channels};
  m.outputs[1] = (MapOutput){.value = 8, .sum = true};
  m.outputs[2] = (MapOutput){.value = 9, .sum = true};
  return m;
}

static void describe_block_gradient(const Bench *b, const Shape *shape, Group *g) {
  ConvBlockSpec s = block_spec(b, shape);
  Shape one = {1, 1, 1, shape->in, shape->out, shape->side, false};
  ConvSpec depthwise = conv_spec(b, shape, shape->in), pointwise = conv_spec(b, &one, 1);
  MapSpec dz = map_dz(&s), mask = map_mask(&s);
  block_sizes(g, shape);
  g->flop *= 2;
  add_part(b, g, add_way(g, "fused"), FAMILY_CONV_BLOCK_GRAD, &s, shape->affine ? "gdhaopbcijkq" : "gdhabcijk");
  Way *parts = add_way(g, "parts");
  add_part(b, g, parts, FAMILY_MAP, &dz, "gdhhhhl");
  add_part(b, g, parts, FAMILY_CONV_GRAD_INPUT, &pointwise, "lcm");
  add_part(b, g, parts, FAMILY_CONV_GRAD_WEIGHT, &pointwise, "lfk");
  add_part(b, g, parts, FAMILY_CONV_GRAD_INPUT, &depthwise, "mbn");
  depthwise.prologue = s.prologue;
  add_part(b, g, parts, FAMILY_CONV_GRAD_WEIGHT, &depthwise, shape->affine ? "maopj" : "maj");
  add_part(b, g, parts, FAMILY_MAP, &mask, shape->affine ? "anopiq" : "anopi");
}

/* ---- the list ---- */

static const int windows[][4] = {{3, 1, 1, 0}, {5, 1, 1, 0}, {3, 2, 1, 0}, {5, 2, 1, 0}, {3, 1, 2, 0},
                                 {5, 1, 2, 0}, {3, 2, 2, 0}, {5, 2, 2, 0}, {3, 1, 1, 1}, {5, 1, 1, 1}};
static const int sides[3][2] = {{16, 32}, {32, 16}, {64, 8}};
static const Shape convs[] = {{1, 1, 1, 48, 16, 32, false}, {1, 1, 1, 64, 16, 32, false}, {1, 1, 1, 128, 32, 16, false},
                              {1, 1, 1, 256, 64, 8, false}, {1, 1, 2, 64, 16, 16, false}, {1, 1, 2, 128, 32, 8, false},
                              {3, 1, 1, 3, 48, 32, false}};
enum { WINDOWS = 10, SIDES = 3, BLOCKS = WINDOWS * SIDES, CONVS = sizeof convs / sizeof *convs };

int group_count(void) {
  return 2 * BLOCKS + 3 * CONVS;
}

static Shape shape_of(int number) {
  if (number >= 2 * BLOCKS) return convs[(number - 2 * BLOCKS) % CONVS];
  const int *window = windows[number % WINDOWS], *side = sides[number % BLOCKS / WINDOWS];
  return (Shape){window[0], window[1], window[2], side[0], side[0], side[1], window[3]};
}

void group_name(int number, Group *g) {
  Shape s = shape_of(number);
  if (number < 2 * BLOCKS) {
    snprintf(g->name, sizeof g->name, "k%dd%ds%dc%d%s%s", s.kernel, s.dilation, s.stride, s.in, s.affine ? "bn" : "",
             number < BLOCKS ? "" : ".grad");
  } else {
    static const char *const kinds[] = {"", ".dx", ".dw"};
    snprintf(g->name, sizeof g->name, "conv%ds%di%do%d%s", s.kernel, s.stride, s.in, s.out, kinds[(number - 2 * BLOCKS) / CONVS]);
  }
}

void group_describe(const Bench *b, int number, Group *g) {
  Shape s = shape_of(number);
  g->images = images_of(s.side);
  if (number < BLOCKS)
    describe_block(b, &s, g);
  else if (number < 2 * BLOCKS)
    describe_block_gradient(b, &s, g);
  else if (number < 2 * BLOCKS + CONVS)
    describe_conv(b, &s, g);
  else
    describe_gradient(b, &s, g, number >= 2 * BLOCKS + 2 * CONVS);
}
