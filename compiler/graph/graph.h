/* The Graph IR: straight-line SSA over immutable tensors, one function a step, no control flow.
 *
 * Values are small integer ids, operands before users, nodes in one growing array in an arena. Emitting folds constants and
 * shares equal nodes. Shapes are static but for a leading symbol B (batch <= Module.batch), bound at launch.
 * What an analysis finds stands in side arrays indexed by ValueId, never in the node. */
#ifndef ADWP_COMPILER_GRAPH_GRAPH_H
#define ADWP_COMPILER_GRAPH_GRAPH_H

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/base/text.h"
#include "runtime/base/vector.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t ValueId;
enum { NO_VALUE = -1, MAX_RANK = 4 };

typedef enum ElementType { ELEMENT_F32, ELEMENT_I32 } ElementType;

/* In which order kernels keep the elements. The interpreter does not care, and no rule of shapes does; compiler/graph/layout.c
 * says which values have which. */
typedef enum Layout {
  LAYOUT_PLAIN,  /* row-major as the shape is written, or not decided yet: no word in the text */
  LAYOUT_NHWC,   /* images: channels side by side */
  LAYOUT_NC,     /* features of images */
  LAYOUT_YXIO,   /* weights of convolutions, and vectors that are the elements of one: (ky, kx, I/groups, O) */
  LAYOUT_IO,     /* a linear layer's (M, N): (N, M) */
  LAYOUT_I_YXIO, /* of a layer that generates weights, (M, N): N, then its M rows in the order of the weights */
} Layout;

typedef struct Type {
  ElementType element;
  bool batched;           /* a leading B before `dims` */
  uint8_t rank;           /* of `dims`, without B */
  uint8_t layout;         /* a Layout; no part of what makes types equal */
  int32_t dims[MAX_RANK]; /* activations: C, H, W; convolution weights: O, I/groups, ky, kx; unused entries are 0 */
} Type;

typedef enum OpCode {
#define OP(NAME, text, arity, attributes, class) OP_##NAME,
#include "compiler/graph/ops.def"
#undef OP
  OP_COUNT
} OpCode;

typedef struct Window { /* convolutions and pools; every field is always set (groups 1, dilation 1 where they do not matter) */
  int32_t kernel_y, kernel_x, stride_y, stride_x, dilation, pad_y, pad_x, groups;
} Window;

/* Only the fields that an operation's bits name are read; the node keeps a copy with zeros (window: ones) in the others. */
typedef struct Attributes {
  const char *name; /* interned in the module: equal names are equal pointers */
  double value;
  int32_t index;        /* element; of a PARAM the index into Module.parameters */
  int32_t begin, count; /* slice */
  int32_t shift_y, shift_x;
  int32_t side_y, side_x; /* of the result, for gradients of windows and of the global pool */
  double beta, decay;
  Window window;
  Type shape; /* reshape, and the type of INPUT, PARAM and CONST */
} Attributes;

typedef struct GraphNode {
  OpCode op;
  Type type;
  int32_t operand_count;
  const ValueId *operands;
  const Attributes *attributes; /* never null */
} GraphNode;

/* A step's named outcome: read back by the runtime, or by a test. */
typedef struct Result {
  const char *name; /* "loss", "correct", "norm", "logits", "grad.PARAM" */
  ValueId value;
} Result;

/* At the end of the step the parameter takes this value. All updates happen at once, after everything was read. */
typedef struct Update {
  int32_t parameter; /* index into Module.parameters */
  ValueId value;
} Update;

/* Marks of the pass fuse: values that one kernel makes. */
typedef struct GraphGroup {
  const char *pattern;   /* "conv_block" */
  const ValueId *values; /* ascending */
  int32_t count;
} GraphGroup;

typedef struct Graph {
  const char *name; /* "train_step" */
  Arena *arena;
  struct Module *module;
  VECTOR(GraphNode) nodes;
  VECTOR(Result) results;
  VECTOR(Update) updates;
  /* What fuse decided, for who reads the text: groups, and values that are never in memory. Other passes drop both. */
  VECTOR(GraphGroup) groups;
  VECTOR(ValueId) computed; /* ascending */
  struct GraphTable *table; /* value numbering; private to the builder */
} Graph;

typedef enum ParameterKind {
  PARAMETER_WEIGHT,
  PARAMETER_ALPHA,
  PARAMETER_MOMENTUM,
  PARAMETER_ADAM_MEAN,
  PARAMETER_ADAM_SQUARE,
  PARAMETER_HOISTED, /* computed by search_enter from weights that do not change until the gate opens again */
} ParameterKind;
typedef enum InitKind { INIT_CONSTANT, INIT_UNIFORM /* +-value */ } InitKind;

typedef struct Parameter {
  const char *name; /* "cells.0.nodes.1.2.dw1.fc2.weight", "alpha.0.1", "momentum.NAME", "adam_mean.alpha.0.1" */
  Type type;
  ParameterKind kind;
  InitKind init;
  double init_value;
  /* A generated convolution's fc2: the shape (O, I/groups, ky, kx) its M outputs are flattened from; rank 0 elsewhere. */
  Type generates;
} Parameter;

typedef struct Module {
  Arena *arena;
  const char *name;
  int32_t batch; /* the largest B */
  VECTOR(Parameter) parameters;
  VECTOR(Graph *) steps;
  VECTOR(Graph *) graphs;    /* every graph of the module, steps among them */
  struct ModuleTable *table; /* names; private to the builder */
} Module;

/* ---- building ---- */
Module *module_new(Arena *arena, const char *name, int32_t batch);
int32_t module_add_parameter(Module *module, Parameter parameter);     /* copies the name; the name must be new */
int32_t module_find_parameter(const Module *module, const char *name); /* -1: none */
Graph *module_add_step(Module *module, const char *name);              /* the name must be new */
Graph *graph_new(Module *module, const char *name);                    /* not among the steps: what a pass makes */
Graph *module_find_step(const Module *module, const char *name);       /* null: none */
const char *module_intern(Module *module, const char *name);
void module_free_tables(Module *module); /* the heap parts (vectors, hash tables); the rest goes with the arena */

Type type_tensor(int rank, const int32_t *dims, bool batched);
Type type_scalar(void);
bool type_equal(Type a, Type b);                 /* element and shape */
int64_t type_elements(Type type, int64_t batch); /* B = batch where batched */

/* Appends the node, or returns an equal one that is there; folds what is constant. Types are worked out by the table's shape
 * rule; a breach of a rule is a bug of the caller (die). `attributes` may be null for none. Any node can be copied into another
 * graph of its module with this alone, leaves too. */
ValueId graph_emit(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes);
/* The node that graph_emit would find; NO_VALUE: there is none yet. Nothing is folded. */
ValueId graph_find(const Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes);
ValueId graph_input(Graph *graph, const char *name, Type type);
ValueId graph_parameter(Graph *graph, int32_t parameter);
ValueId graph_constant(Graph *graph, double value, Type type);
ValueId graph_unary(Graph *graph, OpCode op, ValueId a);
ValueId graph_binary(Graph *graph, OpCode op, ValueId a, ValueId b);
ValueId graph_ternary(Graph *graph, OpCode op, ValueId a, ValueId b, ValueId c);
void graph_result(Graph *graph, const char *name, ValueId value);  /* the name must be new in the graph */
void graph_update(Graph *graph, int32_t parameter, ValueId value); /* at most once a parameter */

static inline const GraphNode *graph_node(const Graph *graph, ValueId value) {
  return &graph->nodes.data[value];
}
static inline Type graph_type(const Graph *graph, ValueId value) {
  return graph->nodes.data[value].type;
}

/* Copies what some result or update needs, and every input, into a new graph of the module. `rewrite` (null: graph_emit) emits
 * what takes the place of `value`, whose operands in `out` are `operands`. Layouts are not copied. */
typedef ValueId GraphRewrite(void *context, Graph *out, const Graph *in, ValueId value, const ValueId *operands);
Graph *graph_copy(const Graph *in, GraphRewrite *rewrite, void *context);

/* ---- layouts ---- */
/* Gives every type of the graph its layout. False: `err` names a value whose elements no kernel finds in the order it needs. */
bool graph_set_layouts(Graph *graph, Err *err);
bool graph_has_layouts(const Graph *graph);
Layout parameter_layout(const Parameter *parameter);

/* ---- the table ---- */
typedef enum OpClass {
  CLASS_LEAF,
  CLASS_MARK, /* stands where a pass will put something, and is not computed */
  CLASS_SMALL,
  CLASS_MAP,
  CLASS_WINDOW,
  CLASS_REDUCE,
  CLASS_DATA,
} OpClass;
typedef struct OpInfo {
  const char *text;
  int32_t arity;       /* -1: variadic */
  uint32_t attributes; /* bits A_... */
  OpClass class;
} OpInfo;
extern const OpInfo op_table[OP_COUNT];

/* The type of a node from its operands' types; false: `err` says which rule is broken. The one place of shape rules, over
 * dsl/shapes.c for windows. */
bool op_result_type(OpCode op, const Type *operands, int32_t count, const Attributes *attributes, Type *result, Err *err);

/* ---- text ---- */
void graph_print(const Graph *graph, Text *out);
void module_print(const Module *module, Text *out); /* parameters, then the steps */
/* Parses what module_print writes; untrusted text gives an error, never a crash. */
Module *module_parse(const char *text, size_t size, Arena *arena, Err *err);

/* ---- checks ---- */
bool graph_verify(const Graph *graph, Err *err); /* operands before users, types by the table, updates of the right type */

/* ---- the reference interpreter: slow, obvious, double precision; tensors row-major in the shapes above ---- */
typedef struct TensorValue {
  Type type;
  double *data; /* labels are whole numbers */
} TensorValue;

typedef struct Interpretation Interpretation;
/* Runs the whole step for this B. `inputs` in the order given by name; `parameters` one array a module parameter, updated in
 * place at the end. Inputs that the step does not have are ignored; a missing one is an error. */
typedef struct NamedTensor {
  const char *name;
  const double *data;
} NamedTensor;
Interpretation *graph_interpret(const Graph *graph, int64_t batch, const NamedTensor *inputs, size_t input_count,
                                double *const *parameters, Err *err);
/* The same, giving back the memory of each value after its last use: only results can be asked for afterwards. */
Interpretation *graph_interpret_results(const Graph *graph, int64_t batch, const NamedTensor *inputs, size_t input_count,
                                        double *const *parameters, Err *err);
const double *interpretation_value(const Interpretation *run, ValueId value);                        /* any value of the graph */
const double *interpretation_result(const Interpretation *run, const char *name, int64_t *elements); /* null: no such result */
void interpretation_free(Interpretation *run);
/* One operation (no leaf) on given operands, for kernels' tests. Sets the result's type; where its data is null, allocates it:
 * the caller's to free(). A label outside the logits is a bug of the caller. */
void op_interpret(OpCode op, const Attributes *attributes, const TensorValue *operands, int32_t count, int64_t batch,
                  TensorValue *result);

/* Attribute bits; A_WINDOW and the like are what ops.def names. */
enum {
  A_NONE = 0,
  A_NAME = 1,
  A_VALUE = 2,
  A_INDEX = 4,
  A_SHAPE = 8,
  A_WINDOW = 16,
  A_SIDE = 32,
  A_RANGE = 64,
  A_SHIFT = 128,
  A_BETA_DECAY = 256,
  A_WINDOW_SIDE = A_WINDOW | A_SIDE,
};
enum { VARIADIC = -1 };

#endif
