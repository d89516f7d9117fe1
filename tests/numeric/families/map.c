/* Elementwise expressions: random ones over all kinds of inputs, with tensors and sums as results, and flat ones that update
 * parameters in place. Values stay within a bound that is tracked, so that the reference's error is known. */
#include "tests/numeric/families/case.h"

#include <math.h>
#include <string.h>

static const double MOST_BOUND = 40; /* of a value's size */
enum { EXCHANGE = 4 };               /* a case that is flat */

typedef struct Expression {
  MapSpec *s;
  double bound[MAP_MAX_INPUTS + MAP_MAX_STEPS]; /* of each operand's size */
} Expression;

static int32_t step(Expression *e, MapStep s, double bound) {
  int32_t operand = e->s->input_count + e->s->step_count;
  e->s->steps[e->s->step_count++] = s;
  e->bound[operand] = bound;
  return operand;
}

static int32_t operand(Case *c, const Expression *e) {
  return case_pick(c, 0, e->s->input_count + e->s->step_count - 1);
}

/* An operand that no `bit` is: bits are used where they are made. */
static int32_t number(Case *c, const Expression *e) {
  for (;;) {
    int32_t i = operand(c, e);
    if (i < e->s->input_count || e->s->steps[i - e->s->input_count].op != LOOP_GT) return i;
  }
}

static int32_t constant(Expression *e, double value) {
  return step(e, (MapStep){.op = LOOP_FLOAT, .value = value}, fabs(value));
}

/* a * a + 1 */
static int32_t positive(Expression *e, int32_t a) {
  int32_t one = constant(e, 1);
  return step(e, (MapStep){.op = LOOP_FMA, .a = a, .b = a, .c = one}, e->bound[a] * e->bound[a] + 1);
}

static void sum_or_product(Case *c, Expression *e, int32_t a, int32_t b, int32_t d) {
  double sum = e->bound[a] + e->bound[b], product = e->bound[a] * e->bound[b], fused = product + e->bound[d];
  switch (case_pick(c, 0, 3)) {
  case 0:
    if (sum < MOST_BOUND) step(e, (MapStep){.op = LOOP_ADD, .a = a, .b = b}, sum);
    break;
  case 1:
    if (sum < MOST_BOUND) step(e, (MapStep){.op = LOOP_SUB, .a = a, .b = b}, sum);
    break;
  case 2:
    if (product < MOST_BOUND) step(e, (MapStep){.op = LOOP_MUL, .a = a, .b = b}, product);
    break;
  default:
    if (fused < MOST_BOUND) step(e, (MapStep){.op = LOOP_FMA, .a = a, .b = b, .c = d}, fused);
    break;
  }
}

static void random_step(Case *c, Expression *e) {
  int32_t a = number(c, e), b = number(c, e), d = number(c, e), inputs = e->s->input_count - 1;
  double larger = fmax(e->bound[a], e->bound[b]);
  switch (case_pick(c, 0, 9)) {
  case 0: step(e, (MapStep){.op = LOOP_MAX, .a = a, .b = b}, larger); break;
  case 1: step(e, (MapStep){.op = LOOP_MIN, .a = a, .b = b}, larger); break;
  case 2: step(e, (MapStep){.op = LOOP_MAX, .a = a, .b = constant(e, 0)}, e->bound[a]); break;
  case 3: step(e, (MapStep){.op = LOOP_BATCH, .value = 0.5}, 0.5 * c->batch); break;
  case 4:
    if (e->bound[a] > 6) break;
    d = positive(e, a);
    step(e, (MapStep){.op = LOOP_DIV, .a = b, .b = d}, e->bound[b]);
    break;
  case 5:
    if (e->bound[a] > 6) break;
    d = positive(e, a);
    step(e, (MapStep){.op = LOOP_SQRT, .a = d}, e->bound[a] + 1);
    break;
  case 6: /* a comparison of inputs is the same in every precision */
    d = step(e, (MapStep){.op = LOOP_GT, .a = case_pick(c, 0, inputs), .b = case_pick(c, 0, inputs)}, 1);
    step(e, (MapStep){.op = LOOP_SELECT, .a = d, .b = a, .c = b}, larger);
    break;
  default: sum_or_product(c, e, a, b, d); break;
  }
}

static double evaluate(const Case *c, const MapSpec *s, double *values, int32_t result) {
  for (int32_t i = 0; i < s->step_count; i++) {
    const MapStep *t = &s->steps[i];
    double a = values[t->a], b = values[t->b], d = values[t->c], *to = &values[s->input_count + i];
    switch (t->op) {
    case LOOP_ADD: *to = a + b; break;
    case LOOP_SUB: *to = a - b; break;
    case LOOP_MUL: *to = a * b; break;
    case LOOP_DIV: *to = a / b; break;
    case LOOP_FMA: *to = a * b + d; break;
    case LOOP_MAX: *to = a > b ? a : b; break;
    case LOOP_MIN: *to = a < b ? a : b; break;
    case LOOP_SQRT: *to = sqrt(a); break;
    case LOOP_GT: *to = a > b; break;
    case LOOP_SELECT: *to = a != 0 ? b : d; break;
    case LOOP_BATCH: *to = c->batch * t->value; break;
    default: *to = t->value; break;
    }
  }
  return values[result];
}

/* ---- inputs ---- */

static const double *add_map_input(Case *c, MapSpec *s, int32_t i) {
  MapInput *input = &s->inputs[i];
  int64_t n = s->channels;
  switch (input->kind) {
  case MAP_TENSOR:
    if (s->flat) return case_input(c, LOOP_ELEMENT_F32, n);
    Plane p = case_plane(c, s->channels, 1, s->pixels);
    input->stride = p.stride;
    input->element = p.element;
    return case_input(c, p.element, plane_size(c, &p));
  case MAP_CHANNEL: input->offset = case_chance(c, 40) ? s->channels : 0; return case_input(c, LOOP_ELEMENT_F32, 2 * n);
  case MAP_SCALAR: input->offset = case_pick(c, 0, 2); return case_input(c, LOOP_ELEMENT_F32, 3);
  default: return case_input(c, LOOP_ELEMENT_F32, c->batch * n);
  }
}

static double input_value(const MapSpec *s, const MapInput *input, const double *data, int64_t pixel, int64_t channel) {
  switch (input->kind) {
  case MAP_TENSOR: return data[s->flat ? channel : pixel * input->stride + channel];
  case MAP_CHANNEL: return data[input->offset + channel];
  case MAP_SCALAR: return data[input->offset];
  default: return data[pixel / s->pixels * s->channels + channel];
  }
}

/* A weighted sum of 20 tensors: a node of a cell. */
static void weighted_sum(Case *c, Expression *e, const double **data) {
  MapSpec *s = e->s;
  s->input_count = 40;
  for (int32_t i = 0; i < 40; i++) {
    s->inputs[i].kind = i < 20 ? MAP_TENSOR : MAP_SCALAR;
    data[i] = add_map_input(c, s, i);
    e->bound[i] = 1;
  }
  int32_t sum = step(e, (MapStep){.op = LOOP_MUL, .a = 0, .b = 20}, 1);
  for (int32_t i = 1; i < 20; i++) sum = step(e, (MapStep){.op = LOOP_FMA, .a = i, .b = 20 + i, .c = sum}, 1 + i);
  for (int32_t i = 0; i < 30; i++) { /* and as many steps as an optimizer has */
    sum = step(e, (MapStep){.op = LOOP_FMA, .a = i % 20, .b = 20 + i % 20, .c = sum}, MOST_BOUND);
    sum = step(e, (MapStep){.op = LOOP_MIN, .a = sum, .b = constant(e, MOST_BOUND)}, MOST_BOUND);
  }
}

static void random_expression(Case *c, Expression *e, const double **data) {
  static const MapKind kinds[] = {MAP_TENSOR, MAP_TENSOR, MAP_TENSOR, MAP_SCALAR, MAP_CHANNEL, MAP_IMAGE};
  MapSpec *s = e->s;
  s->input_count = case_pick(c, 1, 6);
  for (int32_t i = 0; i < s->input_count; i++) {
    s->inputs[i].kind = kinds[case_pick(c, 0, s->flat ? 3 : 5)];
    data[i] = add_map_input(c, s, i);
    e->bound[i] = 1;
  }
  int steps = case_pick(c, 1, 10);
  for (int i = 0; i < steps; i++) random_step(c, e);
}

/* ---- outputs ---- */

typedef struct Results {
  double *want[MAP_MAX_OUTPUTS]; /* of tensors */
  double *partial;               /* (tasks, sums, C) */
  int64_t sums;
} Results;

static void flat_output(Case *c, MapSpec *s, int32_t i, Results *r) {
  MapOutput *output = &s->outputs[i];
  int32_t input = case_pick(c, 0, s->input_count - 1);
  bool taken = false;
  for (int32_t j = 0; j < i; j++) taken |= s->outputs[j].in_place && s->outputs[j].input == input;
  output->in_place = s->inputs[input].kind == MAP_TENSOR && !taken && case_chance(c, 60);
  output->input = input;
  if (!output->in_place) {
    r->want[i] = case_output(c, LOOP_ELEMENT_F32, s->channels);
    return;
  }
  r->want[i] = c->buffers[input].want = ARENA_ARRAY(c->arena, double, s->channels); /* the buffers of inputs are the first */
}

static void add_outputs(Case *c, Expression *e, Results *r) {
  MapSpec *s = e->s;
  s->output_count = case_pick(c, 1, MAP_MAX_OUTPUTS);
  for (int32_t i = 0; i < s->output_count; i++) {
    MapOutput *output = &s->outputs[i];
    output->value = number(c, e);
    if (case_chance(c, 60)) output->value = s->input_count + s->step_count - 1; /* the last step is no bit */
    if (s->step_count == 0) output->value = 0;
    output->sum = !s->flat && case_chance(c, 40);
    double bound = e->bound[output->value];
    if (output->sum) {
      r->sums++;
      continue;
    }
    if (s->flat) {
      flat_output(c, s, i, r);
    } else {
      Plane p = case_plane(c, s->channels, 1, s->pixels);
      output->stride = p.stride;
      output->element = p.element;
      r->want[i] = case_output(c, p.element, plane_size(c, &p));
    }
    CaseBuffer *b = output->in_place ? &c->buffers[output->input] : case_last(c);
    b->spread = bound * sqrt((double)b->count);
    if (b->element == LOOP_ELEMENT_BF16) b->spread = 0; /* the rounding is of the number itself */
  }
  if (!r->sums) return;
  int64_t size = c->tasks * r->sums * s->channels;
  r->partial = case_output(c, LOOP_ELEMENT_F32, size);
  memset(r->partial, 0, (size_t)size * sizeof *r->partial);
  case_last(c)->spread = MOST_BOUND / 4 * sqrt((double)(s->channels * r->sums * c->batch * s->pixels));
}

/* Two tensors change places: each is read before either is written. */
static void exchange(Case *c, Expression *e, const double **data, Results *r) {
  MapSpec *s = e->s;
  s->input_count = s->output_count = 2;
  for (int32_t i = 0; i < 2; i++) data[i] = add_map_input(c, s, i);
  for (int32_t i = 0; i < 2; i++) {
    s->outputs[i] = (MapOutput){.value = 1 - i, .in_place = true, .input = i};
    r->want[i] = c->buffers[i].want = ARENA_ARRAY(c->arena, double, s->channels);
  }
}

static void reference(const Case *c, const MapSpec *s, const double *const *data, const Results *r) {
  int64_t pixels = s->flat ? 1 : (int64_t)c->batch * s->pixels;
  for (int64_t i = 0; i < pixels * s->channels; i++) {
    int64_t pixel = i / s->channels, channel = i % s->channels, sum = 0;
    double values[MAP_MAX_INPUTS + MAP_MAX_STEPS];
    for (int32_t j = 0; j < s->input_count; j++) values[j] = input_value(s, &s->inputs[j], data[j], pixel, channel);
    for (int32_t o = 0; o < s->output_count; o++) {
      const MapOutput *output = &s->outputs[o];
      double value = evaluate(c, s, values, output->value);
      if (!output->sum) {
        r->want[o][s->flat ? channel : pixel * output->stride + channel] = value;
        continue;
      }
      int task = case_task(c, (int)(pixel / s->pixels), (int)(pixel % s->pixels), s->pixels);
      r->partial[(task * r->sums + sum++) * s->channels + channel] += value;
    }
  }
}

static const char *map_text(Case *c, const MapSpec *s) {
  static const char *const kinds[] = {"tensor", "channel", "scalar", "image"};
  Text text = {0};
  text_printf(&text, "%d channels, %d pixels%s, %d steps;", s->channels, s->pixels, s->flat ? ", flat" : "", s->step_count);
  for (int32_t i = 0; i < s->input_count && i < 6; i++)
    text_printf(&text, " %s%s %d", kinds[s->inputs[i].kind], s->inputs[i].element == LOOP_ELEMENT_BF16 ? " bf16" : "",
                s->inputs[i].stride);
  text_printf(&text, " ->");
  for (int32_t i = 0; i < s->output_count; i++)
    text_printf(&text, " %s%s %d",
                s->outputs[i].sum        ? "sum"
                : s->outputs[i].in_place ? "over"
                                         : "tensor",
                s->outputs[i].element == LOOP_ELEMENT_BF16 ? " bf16" : "",
                s->outputs[i].in_place ? s->outputs[i].input : s->outputs[i].stride);
  const char *copy = arena_copy_string(c->arena, text.data, text.length);
  text_free(&text);
  return copy;
}

void case_map(Case *c) {
  MapSpec s = {.target = c->target, .flat = c->number % 3 == 1, .channels = case_channels(c)};
  Expression e = {.s = &s};
  Results r = {0};
  const double *data[MAP_MAX_INPUTS];
  if (s.flat) {
    s.channels = case_chance(c, 70) ? case_pick(c, 1, 200) : case_pick(c, 201, 3000);
    s.images = s.bands = s.pixels = 1;
    s.chunk = c->target.lanes * case_pick(c, 1, 4);
    c->tasks = (s.channels + s.chunk - 1) / s.chunk;
  } else {
    s.pixels = case_side(c) * case_side(c);
    if (c->number == 0) s.channels = 16, s.pixels = 256, c->batch = 1;
    case_divide(c, s.pixels);
    s.images = c->images, s.bands = c->bands;
  }
  if (c->number == EXCHANGE) {
    exchange(c, &e, data, &r);
  } else {
    if (c->number < 2)
      weighted_sum(c, &e, data);
    else
      random_expression(c, &e, data);
    add_outputs(c, &e, &r);
  }
  reference(c, &s, data, &r);
  c->text = map_text(c, &s);
  case_build(c, &s);
}
