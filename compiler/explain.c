/* The model of costs counts passes over tensors. A fused value is neither written nor read; without its pattern it would be
 * written once and read by each of its readers. Where that would happen between launches of one run the bytes move between a core
 * and its second-level cache; else, for tensors of some MB, through the third level or memory. An operation that is left alone
 * costs the same with and without, so it does not appear. */
#include "compiler/explain.h"

#include "compiler/pass/schedule.h"

#include <string.h>

typedef struct Explainer {
  const Schedule *schedule;
  const Graph *graph;
  const Fusion *fusion;
  const MachineFigures *machine;
  FuseSavings savings;
  int32_t *readers; /* of each value */
  int32_t *number;  /* of each value in the graph's text */
  bool *copied;     /* into a concatenation's place */
  Text *out;
} Explainer;

static double bytes_of(const Explainer *e, ValueId v) {
  return 4.0 * (double)type_elements(graph_type(e->graph, v), e->graph->module->batch);
}

/* Between launches of a run: written and read in the second-level cache. */
static double near(const Explainer *e, double bytes) {
  return bytes / e->machine->cache2_read;
}

/* Between launches far apart. */
static double far_read(const Explainer *e, double bytes) {
  return bytes / e->machine->memory_read;
}
static double far_write(const Explainer *e, double bytes) {
  return bytes / e->machine->memory_write;
}

static double kept_apart(const Explainer *e, ValueId v) { /* written once, and read by each reader */
  bool runs = fuse_wants(&e->fusion->options, FUSE_RUN);
  double bytes = bytes_of(e, v), readers = e->readers[v];
  return runs ? near(e, bytes * (1 + readers)) : far_write(e, bytes) + far_read(e, bytes) * readers;
}

static void note(Explainer *e, FusePattern pattern, double seconds) {
  e->savings.seconds[pattern] += seconds;
  e->savings.count[pattern]++;
}

static void line(Explainer *e, ValueId v) {
  const GraphNode *node = graph_node(e->graph, v);
  text_printf(e->out, "  %%%d %s", e->number[v], op_table[node->op].text);
  for (int i = 0; i < node->type.rank; i++) text_printf(e->out, "%s%d", i ? "x" : " ", node->type.dims[i]);
  text_add(e->out, ": ");
}

static void saves(Explainer *e, FusePattern pattern, double seconds) {
  note(e, pattern, seconds);
  text_printf(e->out, " (%s); saves %.3f ms\n", fuse_name(pattern), 1e3 * seconds);
}

/* ---- groups ---- */

static double group_seconds(const Explainer *e, const FuseGroup *group) {
  const BlockValues *b = &group->block;
  double z = bytes_of(e, b->z);
  if (group->pattern == FUSE_MOMENTS) return near(e, z);
  double d = bytes_of(e, b->d);
  if (group->pattern == FUSE_CONV_BLOCK) return near(e, 2 * d + z);
  /* dz is made and read twice, d made again and read, dd made and read twice; da is made, masked and added, or summed */
  double x = bytes_of(e, b->da);
  return near(e, 3 * z + 2 * d + 3 * d + 3 * x + (b->next_sums != NO_VALUE ? x : 0));
}

static void explain_group(Explainer *e, const FuseGroup *group) {
  line(e, group->values[0]);
  text_add(e->out, "one launch makes");
  for (int32_t i = 0; i < group->count; i++) text_printf(e->out, " %%%d", e->number[group->values[i]]);
  saves(e, group->pattern, group_seconds(e, group));
  if (group->pattern == FUSE_CONV_BLOCK_GRAD && group->block.sum != NO_VALUE) {
    line(e, group->block.sum);
    text_printf(e->out, "written over %%%d", e->number[group->block.before]);
    saves(e, FUSE_ACCUMULATE, near(e, 2 * bytes_of(e, group->block.sum)) + far_write(e, bytes_of(e, group->block.sum)));
  }
}

/* ---- what stands alone ---- */

/* Why this value is in memory: a reader that cannot compute it. */
static void explain_kept(Explainer *e, ValueId v) {
  const GraphNode *node = graph_node(e->graph, v);
  for (size_t i = 0; i < e->graph->results.count; i++)
    if (e->graph->results.data[i].value == v) {
      text_printf(e->out, "in memory: it is the result %s\n", e->graph->results.data[i].name);
      return;
    }
  bool elementwise = op_table[node->op].class == CLASS_MAP;
  for (size_t u = (size_t)v + 1; u < e->graph->nodes.count; u++) {
    const GraphNode *user = graph_node(e->graph, (ValueId)u);
    for (int32_t i = 0; i < user->operand_count; i++) {
      if (user->operands[i] != v) continue;
      bool window = op_table[user->op].class == CLASS_WINDOW;
      if (elementwise && e->readers[v] > 1)
        text_printf(e->out, "in memory: %d values read it, and to compute it for each costs more\n", e->readers[v]);
      else
        text_printf(e->out, "in memory: %%%d %s %s\n", e->number[u], op_table[user->op].text,
                    window        ? "reads its neighbours"
                    : elementwise ? "reads it from memory"
                                  : "is another kernel's");
      return;
    }
  }
  text_add(e->out, "not read\n");
}

static void explain_unkept(Explainer *e, ValueId v, bool convolution) {
  line(e, v);
  text_printf(e->out, "computed where it is read, by %d", e->readers[v]);
  saves(e, convolution ? FUSE_PROLOGUE : FUSE_MAP, kept_apart(e, v));
}

static bool read_by_convolution(const Explainer *e, ValueId v) {
  for (size_t u = (size_t)v + 1; u < e->graph->nodes.count; u++) {
    const GraphNode *user = graph_node(e->graph, (ValueId)u);
    for (int32_t i = 0; i < user->operand_count; i++)
      if (user->operands[i] == v) {
        if (user->op == OP_CONV || user->op == OP_CONV_GRAD_WEIGHT) return true;
        if (user->op == OP_RELU && !e->fusion->kept[u]) return read_by_convolution(e, (ValueId)u);
        return false;
      }
  }
  return false;
}

static void explain_scratch(Explainer *e, ValueId v) {
  int32_t storage = e->schedule->places[v].storage;
  if (storage < 0 || !e->schedule->storages.data[storage].in_scratch) return;
  line(e, v);
  text_add(e->out, "in a worker's scratch: only its run touches it");
  double bytes = bytes_of(e, v);
  saves(e, FUSE_RUN, far_write(e, bytes) + (far_read(e, bytes) - near(e, bytes)) * e->readers[v]);
}

static void explain_value(Explainer *e, ValueId v) {
  const GraphNode *node = graph_node(e->graph, v);
  bool view = node->op == OP_SLICE || node->op == OP_RESHAPE;
  if (op_table[node->op].class == CLASS_LEAF || view || !node->type.batched || node->type.rank != 3) return;
  if (e->copied[v]) {
    line(e, v);
    text_add(e->out, "written into its place in a concatenation");
    saves(e, FUSE_PLACE, far_read(e, bytes_of(e, v)) + far_write(e, bytes_of(e, v)));
  }
  if (e->fusion->group[v] < 0 && !e->fusion->kept[v]) {
    explain_unkept(e, v, read_by_convolution(e, v));
    return;
  }
  if (e->fusion->group[v] < 0) {
    line(e, v);
    explain_kept(e, v);
  }
  explain_scratch(e, v);
}

/* Bytes that making a weight reads: the second layer's matrix, or u and v. */
static double generator_bytes(const Explainer *e, ValueId made) {
  const GraphNode *node = graph_node(e->graph, made);
  if (node->op != OP_LINEAR) return 2 * bytes_of(e, made);
  return bytes_of(e, node->operands[1]) + bytes_of(e, node->operands[2]);
}

/* On how many tasks the launches that read a weight run, all together. */
static int64_t reading_tasks(const Explainer *e, ValueId weight) {
  int64_t tasks = 0;
  for (size_t i = 0; i < e->schedule->launches.count; i++) {
    const PlannedLaunch *launch = &e->schedule->launches.data[i];
    for (int32_t b = 0; b < launch->buffer_count; b++)
      if (launch->images > 0 && launch->buffers[b].storage == e->schedule->places[weight].storage)
        tasks += program_tasks(launch->images, launch->tasks, e->graph->module->batch);
  }
  return tasks;
}

/* A weight that is no parameter. */
static void explain_generator(Explainer *e, ValueId v) {
  const GraphNode *node = graph_node(e->graph, v);
  if (node->op != OP_RESHAPE || node->type.rank != 4 || node->type.batched) return;
  ValueId made = node->operands[0];
  const GraphNode *from = graph_node(e->graph, made);
  if (op_table[from->op].class == CLASS_REDUCE || op_table[from->op].class == CLASS_WINDOW) return;
  line(e, v);
  bool hoisted = from->op != OP_LINEAR;
  FuseGenerate form = e->fusion->options.generate == GENERATE_HOISTED ? GENERATE_HORIZONTAL : e->fusion->options.generate;
  text_printf(e->out, "a GeneratingBlock of %d weights, made %s%s", (int)type_elements(node->type, 1),
              hoisted ? "as u p + v (hoisted), " : "", fuse_generate_name(form));
  double once = far_read(e, generator_bytes(e, made)) + far_write(e, bytes_of(e, v));
  double each = near(e, generator_bytes(e, made) + bytes_of(e, v)) * (double)reading_tasks(e, v);
  if (e->schedule->places[v].storage < 0)
    text_add(e->out, ", on each task that reads it\n");
  else
    text_printf(e->out, ": %.4f ms; vertically, on each task that reads it, %.4f ms\n", 1e3 * once, 1e3 * each);
}

static void find_copied(Explainer *e) {
  if (!fuse_wants(&e->fusion->options, FUSE_PLACE)) return;
  for (size_t v = 0; v < e->graph->nodes.count; v++) {
    const GraphNode *node = graph_node(e->graph, (ValueId)v);
    for (int32_t i = 0; i < node->operand_count && node->op == OP_CONCAT; i++) {
      const Place *whole = &e->schedule->places[v], *part = &e->schedule->places[node->operands[i]];
      e->copied[node->operands[i]] = whole->storage >= 0 && part->storage == whole->storage;
    }
  }
}

static void explain_descend(Explainer *e) {
  for (size_t i = 0; i < e->graph->nodes.count; i++) {
    const GraphNode *node = graph_node(e->graph, (ValueId)i);
    bool outer = node->op == OP_LINEAR_GRAD_WEIGHT && !graph_type(e->graph, node->operands[0]).batched;
    if (outer && e->schedule->places[i].storage < 0)
      note(e, FUSE_DESCEND, far_write(e, bytes_of(e, (ValueId)i)) + far_read(e, bytes_of(e, (ValueId)i)));
  }
}

void explain_fusion(const Schedule *schedule, const MachineFigures *machine, Text *out, FuseSavings *savings) {
  const Graph *graph = schedule->graph;
  size_t count = graph->nodes.count;
  Explainer e = {.schedule = schedule, .graph = graph, .fusion = schedule->fusion, .machine = machine, .out = out};
  e.readers = memory_alloc(count * sizeof *e.readers + 1);
  e.copied = memory_alloc(count * sizeof *e.copied + 1);
  for (size_t v = 0; v < count; v++)
    for (int32_t i = 0; i < graph->nodes.data[v].operand_count; i++) e.readers[graph->nodes.data[v].operands[i]]++;
  e.number = memory_alloc(count * sizeof *e.number + 1);
  for (size_t v = 0, next = 0; v < count; v++)
    if (graph->nodes.data[v].op != OP_INPUT && graph->nodes.data[v].op != OP_PARAM) e.number[v] = (int32_t)next++;
  find_copied(&e);
  text_printf(out, "%s\n", graph->name);
  for (size_t v = 0; v < count; v++) {
    int32_t group = e.fusion->group[v];
    if (group >= 0 && e.fusion->groups.data[group].values[0] == (ValueId)v) explain_group(&e, &e.fusion->groups.data[group]);
    explain_generator(&e, (ValueId)v);
    explain_value(&e, (ValueId)v);
  }
  explain_descend(&e);
  text_printf(out, "%s as a whole, expected to save\n", graph->name);
  for (int p = 0; p < FUSE_PATTERN_COUNT; p++)
    text_printf(out, "  %-16s %5d times %9.3f ms\n", fuse_name((FusePattern)p), e.savings.count[p], 1e3 * e.savings.seconds[p]);
  if (savings) *savings = e.savings;
  free(e.readers);
  free(e.number);
  free(e.copied);
}
