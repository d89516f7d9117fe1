/* What builder, text, verifier and interpreter of the Graph IR share: the limits, how attributes are named in the text (one
 * table, so that printer and parser cannot drift apart), raw appending, and the interpreter's parts. */
#ifndef ADWP_COMPILER_GRAPH_GRAPH_PRIVATE_H
#define ADWP_COMPILER_GRAPH_GRAPH_PRIVATE_H

#include "compiler/graph/graph.h"

/* Far above every model that makes sense, and low enough that no text can exhaust memory. */
enum {
  GRAPH_MAX_TEXT = 256 << 20,   /* bytes */
  GRAPH_MAX_NODES = 1 << 20,    /* of a step */
  GRAPH_MAX_OPERANDS = 1 << 12, /* of a node */
  GRAPH_MAX_PARAMETERS = 1 << 18,
  GRAPH_MAX_STEPS = 64,
  GRAPH_MAX_BATCH = 1 << 20,
  GRAPH_MAX_NAME = 200, /* characters */
};

typedef struct TypeText {
  char text[80];
} TypeText;

/* `f32[B, 3, 32, 32]` */
TypeText type_text(Type type);
/* Every extent at least 1, and at most INT32_MAX elements without B. */
bool type_valid(Type type);

/* The word of a layout; null: it is plain, or there is none. */
const char *layout_text(Layout layout);
/* The first breach of the rules of layouts, or of what the types say; a graph without layouts has none. */
bool layouts_ok(const Graph *graph, Err *err);

/* A letter or `_`, then letters, digits, `_`, `.`. */
bool graph_name_ok(const char *name);
const char *parameter_kind_text(ParameterKind kind);
const char *init_kind_text(InitKind kind);

/* How an attribute stands between braces. A pair with equal halves is written once. */
typedef enum KeyKind { KEY_INTEGER, KEY_PAIR, KEY_NUMBER } KeyKind;
typedef struct AttributeKey {
  const char *text;
  uint32_t bit;
  KeyKind kind;
  size_t offset, second; /* of int32_t fields in Attributes, or of a double */
  bool required;         /* else it is left out where it has the value `usual` */
  int32_t usual;
} AttributeKey;
enum { ATTRIBUTE_KEYS = 13 };
extern const AttributeKey attribute_keys[ATTRIBUTE_KEYS];

/* The fields that `op` names; every other is zero, of a window 1. */
Attributes attributes_of(OpCode op, const Attributes *given);

/* Appends without folding or sharing: the text of a graph is the graph. Operands are copied; the type is the rule's. */
ValueId graph_append(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes, Type type);

/* An existing or constant value equal to what the node would be, or NO_VALUE. Attributes are `attributes_of`'s. */
ValueId graph_fold(Graph *graph, OpCode op, const ValueId *operands, int32_t count, const Attributes *attributes, Type type);

#define BATCH_NORM_EPSILON 1e-5 /* added to the variance */

/* One call of the interpreter; `y` is zero at first. */
typedef struct Call {
  OpCode op;
  const Attributes *attributes;
  const TensorValue *x; /* operands */
  int32_t count;
  int64_t batch;
  Type type; /* of the result */
  double *y;
} Call;

void interpret_map(const Call *call);
void interpret_reduce(const Call *call);
void interpret_small(const Call *call);
void interpret_window(const Call *call);
void interpret_data(const Call *call);

#endif
