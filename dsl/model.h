/* Model: a checked `.adwp` file, everything filled in and every shape known. It knows nothing of tensors or machines.
 *
 * The checker instantiates the file's operations for each place where they stand: an operation of a node becomes a Chain of
 * primitives whose channels, sides, strides and paddings are numbers. `lower` only walks what is here.
 * Everything lives in the arena of `model_check`; the structs are open and read-only for everyone above. */
#ifndef ADWP_DSL_MODEL_H
#define ADWP_DSL_MODEL_H

#include "dsl/source.h" /* Source, Span, Diagnostics */
#include "runtime/base/arena.h"

#include <stdbool.h>
#include <stdint.h>

/* Channels and sides of one image's activation; height and width 1 after a global pool (then `channels` are features). */
typedef struct Shape {
  int channels, height, width;
} Shape;

typedef enum Primitive {
  PRIMITIVE_IDENTITY,
  PRIMITIVE_ZERO, /* zeros of shape `out` */
  PRIMITIVE_RELU,
  PRIMITIVE_CONV, /* dense, depthwise, pointwise and grouped alike; no bias */
  PRIMITIVE_BN,   /* eps 1e-5; `affine` adds scale and shift */
  PRIMITIVE_MAX_POOL,
  PRIMITIVE_AVG_POOL, /* the mean over the pixels inside the image */
  PRIMITIVE_SHIFT,    /* x[shift_y:, shift_x:] */
  PRIMITIVE_CONCAT,   /* of `branches`, along channels; each branch reads this stage's input */
  PRIMITIVE_ADD,      /* of `branches` */
  PRIMITIVE_GLOBAL_AVG_POOL,
  PRIMITIVE_LINEAR, /* with bias */
} Primitive;

typedef struct Chain Chain;

typedef struct Stage {
  Primitive kind;
  const char *name; /* unique within its Chain; "dw1", "pw2", "conv1", "bn1", "linear1": what its parameters are named after */
  Shape in, out;
  int kernel_y, kernel_x, stride_y, stride_x, dilation, pad_y, pad_x, groups; /* convolutions and pools */
  int shift_y, shift_x;
  bool affine;                  /* BN */
  bool generated;               /* this convolution's weight is predicted by a GeneratingBlock of its own */
  const Chain *const *branches; /* concat, add; stage names are unique over all branches together */
  int branch_count;
  Span where;
} Stage;

struct Chain {
  const Stage *stages;
  int count; /* 0: the identity */
  Shape in, out;
};

/* One of the K kept (operation, source) pairs of a node. */
typedef struct Candidate {
  const char *operation; /* its name in the space, "sep_conv_3x3" */
  int operation_index;   /* its place in the space: the order that breaks ties */
  int source;            /* 0, 1: the cell's inputs; 2..: its earlier nodes N2.. */
  Chain chain;
} Candidate;

typedef struct Node {
  Candidate *candidates;
  int count; /* K */
} Node;

typedef struct Cell {
  bool reduction;
  int channels;
  Chain preprocess[2]; /* of the outputs of cells l-2 and l-1 (the stem's, where there is none) */
  Node *nodes;         /* N2, N3, ... ; the output is their concatenation */
  int node_count;
  Shape out;
} Cell;

typedef enum Activation { ACTIVATION_NONE, ACTIVATION_RELU } Activation;

typedef struct Generator {
  int hidden;
  Activation activation;
} Generator;

typedef struct DataSet {
  const char *name;
  const char *format; /* "cifar10-binary" | "synthetic" */
  Shape image;
  int classes;
  const double *mean, *std; /* one a channel, of x/255 */
  double train_fraction;    /* the first part of each class in file order is x_train, the rest x_val */
  int crop_pad;             /* 0: no crop */
  bool flip;
  int cutout;                    /* 0: none, else the side of the square */
  int train_images, test_images; /* synthetic: how many are drawn for train + valid, and for test */
} DataSet;

typedef struct Search {
  int train, cross_start, cross_end, total; /* epochs; cross_start == cross_end: no cross-search */
  int batch;
  double lr_start, lr_end, momentum, decay, clip; /* weights: SGD, cosine over `total`; clip 0: no clipping */
  double alpha_lr, alpha_beta1, alpha_beta2, alpha_epsilon, alpha_decay; /* Adam */
  double alpha_scale;                                                    /* deviation of the random logits of [0, train): 1 */
  double alpha_initial; /* deviation of the logits at the start of the search: 1e-3 */
  int keep;             /* T */
  bool last;            /* the result is the last epoch's alpha and not the best one's */
  uint64_t seed;
} Search;

typedef struct Model {
  const char *name;  /* of the hypernetwork */
  const char *space; /* of the intensive-space's original space: "darts" */
  DataSet data;
  int channels;        /* C of the first cell */
  int stem_multiplier; /* the stem's output channels / C, as `--stage=spec` prints it */
  Chain stem;
  Cell *cells;
  int cell_count;
  Chain head; /* global_avg_pool -> linear(classes); cross-entropy is the loss */
  Generator generator;
  Search search;
  const struct ModelSyntax *syntax; /* for dsl_print_model and dsl_print_spec alone */
} Model;

#endif
