/* Products that a GPU's library does: the classifier, and convolutions from pixel to pixel of many channels whose input needs no
 * prologue. Everything else multiplies in kernels of our own, which also normalise, activate and round on the way. */
#include "compiler/pass/schedule_private.h"

enum { LIBRARY_CHANNELS = 128 }; /* from here on the library is worth a launch that does nothing else */

static ProgramMatrix matrix(const Scheduler *s, Place place, int64_t stride, bool transposed) {
  return (ProgramMatrix){transposed, schedule_element(s, place) == LOOP_ELEMENT_BF16, stride};
}

bool schedule_is_library_conv(const Scheduler *s, const Window *w, Plane in, Plane out) {
  bool plain =
      w->kernel_y == 1 && w->kernel_x == 1 && w->stride_y == 1 && w->stride_x == 1 && !w->pad_y && !w->pad_x && w->groups == 1;
  bool wide = in.channels >= LIBRARY_CHANNELS || out.channels >= LIBRARY_CHANNELS;
  bool single = in.element == LOOP_ELEMENT_F32 && out.element == LOOP_ELEMENT_F32; /* weights are f32, and factors must agree */
  return s->kernels->target.gpu && plain && wide && single;
}

/* x (rows, inner), w (inner, outer), y (rows, outer), rows = pixels * B. */
typedef struct Layer {
  int64_t pixels, inner, outer;
  int64_t x_stride, y_stride;
} Layer;

static Ready launch_product(Scheduler *s, Call *call, const Layer *layer, LayerPart made, float beta, double flops) {
  Place a = call->buffers[0], b = call->buffers[1], c = call->buffers[2];
  ProgramProduct product;
  memset(&product, 0, sizeof product);
  product.beta = beta;
  product.tf32 = s->kernels->target.products != PRODUCTS_FP32;
  switch (made) {
  case LAYER_OUTPUT: /* y = x w */
    product.a = matrix(s, a, layer->x_stride, false), product.b = matrix(s, b, layer->outer, false);
    product.c = matrix(s, c, layer->y_stride, false);
    product.m = layer->pixels, product.n = layer->outer, product.k = layer->inner;
    product.batch_m = true;
    break;
  case LAYER_INPUT_GRADIENT: /* dx = dy w^T */
    product.a = matrix(s, a, layer->y_stride, false), product.b = matrix(s, b, layer->outer, true);
    product.c = matrix(s, c, layer->x_stride, false);
    product.m = layer->pixels, product.n = layer->inner, product.k = layer->outer;
    product.batch_m = true;
    break;
  case LAYER_WEIGHT_GRADIENT: /* dw = x^T dy */
    product.a = matrix(s, a, layer->x_stride, true), product.b = matrix(s, b, layer->y_stride, false);
    product.c = matrix(s, c, layer->outer, false);
    product.m = layer->inner, product.n = layer->outer, product.k = layer->pixels;
    product.batch_k = true;
    break;
  }
  return call_product(s, call, &product, flops);
}

Ready schedule_conv_product(Scheduler *s, Call *call, Plane in, Plane out, LayerPart made, double flops) {
  Layer layer = {(int64_t)in.height * in.width, in.channels, out.channels, in.stride, out.stride};
  return launch_product(s, call, &layer, made, 0, flops);
}

bool schedule_linear_product(Scheduler *s, ValueId v, double flops) {
  const GraphNode *node = graph_node(s->graph, v);
  if (!s->kernels->target.gpu || !graph_type(s->graph, node->operands[0]).batched) return false;
  Type weight = node->op == OP_LINEAR_GRAD_WEIGHT ? node->type : graph_type(s->graph, node->operands[1]);
  Layer layer = {1, weight.dims[1], weight.dims[0], weight.dims[1], weight.dims[0]};
  Place to = schedule_place(s, v);
  Call call = {0};
  LayerPart made = LAYER_OUTPUT;
  if (node->op == OP_LINEAR) {
    call_read(s, &call, node->operands[0]);
    call_read(s, &call, node->operands[1]);
    call_place(&call, to, schedule_spread(s, node->operands[2], v, to));
  } else if (node->op == OP_LINEAR_GRAD_INPUT) {
    made = LAYER_INPUT_GRADIENT;
    call_read(s, &call, node->operands[0]);
    call_read(s, &call, node->operands[1]);
    call_place(&call, to, READY_AT_ONCE);
  } else {
    made = LAYER_WEIGHT_GRADIENT;
    call_read(s, &call, node->operands[1]);
    call_read(s, &call, node->operands[0]);
    call_place(&call, to, READY_AT_ONCE);
  }
  schedule_written(s, v, launch_product(s, &call, &layer, made, made == LAYER_OUTPUT, flops));
  return true;
}
