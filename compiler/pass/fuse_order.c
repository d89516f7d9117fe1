/* The order in which values are made: that of the graph, but each group's values together, after all that any of them reads. A
 * group is made when a value outside it is met that reads one of its own, or at its last value. Groups that wait for each other
 * cannot be made at once: then the later one is dissolved, and the search for an order begins anew. */
#include "compiler/pass/fuse_private.h"

typedef enum State { WAITING, UNDER_WAY, MADE } State;

typedef struct Order {
  Fuser *f;
  State *value, *group;
  ValueId *order;
  size_t count;
  int32_t inside;   /* the group under way, the innermost; -1: none */
  int32_t dissolve; /* a group that waits for itself; -1: none */
} Order;

static void make(Order *o, ValueId v);

static void make_operands(Order *o, ValueId v, int32_t group) {
  const GraphNode *node = graph_node(o->f->graph, v);
  for (int32_t i = 0; i < node->operand_count && o->dissolve < 0; i++)
    if (group < 0 || o->f->out->group[node->operands[i]] != group) make(o, node->operands[i]);
}

static void make(Order *o, ValueId v) {
  int32_t group = o->f->out->group[v];
  State *state = group < 0 ? &o->value[v] : &o->group[group];
  if (*state == MADE || o->dissolve >= 0) return;
  if (*state == UNDER_WAY) { /* values alone cannot wait for themselves */
    o->dissolve = o->inside;
    return;
  }
  int32_t outside = o->inside;
  if (group >= 0) o->inside = group;
  *state = UNDER_WAY;
  const FuseGroup *all = group < 0 ? NULL : &o->f->out->groups.data[group];
  const ValueId *values = all ? all->values : &v;
  int32_t count = all ? all->count : 1;
  for (int32_t i = 0; i < count; i++) make_operands(o, values[i], group);
  if (o->dissolve >= 0) return;
  o->inside = outside;
  for (int32_t i = 0; i < count; i++) o->order[o->count++] = values[i];
  *state = MADE;
}

static void dissolve(Fuser *f, int32_t group) {
  FuseGroup *gone = &f->out->groups.data[group];
  for (int32_t i = 0; i < gone->count; i++) f->out->group[gone->values[i]] = -1;
  gone->count = 0;
}

/* A group is not made before its last value is met, unless it is asked for. */
static bool waits(const Fuser *f, ValueId v) {
  int32_t group = f->out->group[v];
  if (group < 0) return false;
  const FuseGroup *all = &f->out->groups.data[group];
  return all->values[all->count - 1] != v;
}

void fuse_order(Fuser *f) {
  size_t count = f->graph->nodes.count;
  Order o = {.f = f, .order = ARENA_ARRAY(f->arena, ValueId, count + 1)};
  do {
    o.value = memory_alloc(count * sizeof *o.value + 1);
    o.group = memory_alloc(f->out->groups.count * sizeof *o.group + 1);
    o.count = 0;
    o.inside = o.dissolve = -1;
    for (size_t v = 0; v < count && o.dissolve < 0; v++)
      if (!waits(f, (ValueId)v)) make(&o, (ValueId)v);
    if (o.dissolve >= 0) dissolve(f, o.dissolve);
    free(o.value);
    free(o.group);
  } while (o.dissolve >= 0);
  f->out->order = o.order;
}
