/* The interpreter's reductions over images: a number or two for each channel, or one for all. */
#include "compiler/graph/graph_private.h"

#include <math.h>

typedef struct Images {
  int64_t batch, channels, plane;
} Images;

static double plane_sum(const double *x, int64_t plane) {
  double sum = 0;
  for (int64_t i = 0; i < plane; i++) sum += x[i];
  return sum;
}

static double plane_dot(const double *a, const double *b, int64_t plane) {
  double sum = 0;
  for (int64_t i = 0; i < plane; i++) sum += a[i] * b[i];
  return sum;
}

/* Mean first, then the mean square of what is left: no cancellation. */
static void moments(const double *x, Images s, double *y) {
  double n = (double)(s.batch * s.plane);
  for (int64_t p = 0; p < s.batch * s.channels; p++) y[p % s.channels] += plane_sum(x + p * s.plane, s.plane) / n;
  for (int64_t p = 0; p < s.batch * s.channels; p++) {
    double sum = 0, mean = y[p % s.channels];
    for (int64_t i = 0; i < s.plane; i++) sum += (x[p * s.plane + i] - mean) * (x[p * s.plane + i] - mean);
    y[s.channels + p % s.channels] += sum / n;
  }
}

static void grad_sums(const double *dy, const double *x, const double *moment, Images s, double *y) {
  for (int64_t p = 0; p < s.batch * s.channels; p++) {
    int64_t c = p % s.channels;
    double sum = 0, deviation = sqrt(moment[s.channels + c] + BATCH_NORM_EPSILON);
    for (int64_t i = p * s.plane; i < (p + 1) * s.plane; i++) sum += dy[i] * (x[i] - moment[c]) / deviation;
    y[c] += plane_sum(dy + p * s.plane, s.plane);
    y[s.channels + c] += sum;
  }
}

void interpret_reduce(const Call *call) {
  Type type = call->x[0].type;
  const double *a = call->x[0].data, *b = call->x[call->count > 1].data; /* the second, of two */
  Images s = {call->batch, type.dims[0], (int64_t)type.dims[1] * type.dims[2]};
  switch (call->op) {
  case OP_BN_MOMENTS: moments(a, s, call->y); return;
  case OP_BN_GRAD_SUMS: grad_sums(a, b, call->x[2].data, s, call->y); return;
  case OP_CHANNEL_SUM:
    for (int64_t p = 0; p < s.batch * s.channels; p++) call->y[p % s.channels] += plane_sum(a + p * s.plane, s.plane);
    return;
  case OP_CHANNEL_DOT:
    for (int64_t p = 0; p < s.batch * s.channels; p++)
      call->y[p % s.channels] += plane_dot(a + p * s.plane, b + p * s.plane, s.plane);
    return;
  case OP_DOT: call->y[0] = plane_dot(a, b, type_elements(type, call->batch)); return;
  case OP_GLOBAL_AVG_POOL:
    for (int64_t p = 0; p < s.batch * s.channels; p++) call->y[p] = plane_sum(a + p * s.plane, s.plane) / (double)s.plane;
    return;
  default: die("%s is no reduction", op_table[call->op].text);
  }
}
