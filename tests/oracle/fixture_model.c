/* The spec's `intensive.normal[node][k] = [operation, source]` becomes the lines of an intensive-space; nodes count from 0 there
 * and from 2 in the language. The text goes through the normal front end: what a fixture checks is the whole compiler. */
#include "tests/oracle/fixture_model.h"

#include "dsl/dsl.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char search_text[] = "search net on fixture {\n"
                                  "    batch    %d\n"
                                  "    weights  sgd(lr: 0.025 -> 0 cosine, momentum: 0.9, decay: 3e-4, clip: 5)\n"
                                  "    alpha    adam(lr: 3e-4, betas: [0.5, 0.999], epsilon: 1e-8, decay: 1e-3)\n"
                                  "    keep     top 1\n"
                                  "}\n";

static int whole(json_t *spec, const char *key, int usual) {
  json_t *value = json_object_get(spec, key);
  return value ? (int)json_integer_value(value) : usual;
}

static bool add_nodes(Text *text, json_t *nodes, const char *name) {
  size_t j, k;
  json_t *node, *pair;
  if (!json_is_array(nodes)) return false;
  text_printf(text, "    %s {\n", name);
  json_array_foreach(nodes, j, node) {
    text_printf(text, "        node %zu:", j + 2);
    json_array_foreach(node, k, pair) {
      const char *operation = json_string_value(json_array_get(pair, 0));
      if (!operation) return false;
      int source = (int)json_integer_value(json_array_get(pair, 1));
      text_printf(text, "%s %s(%d)", k ? "," : "", operation, source);
    }
    text_add(text, "\n");
  }
  text_add(text, "    }\n");
  return true;
}

/* The reduction cells, where the spec names them: cell l of L stands at l/L. */
static void add_reductions(Text *text, json_t *spec) {
  size_t i;
  json_t *cells = json_object_get(spec, "reduce"), *cell;
  if (!json_is_array(cells)) return;
  if (json_array_size(cells) == 0) text_add(text, "    reduction none\n");
  json_array_foreach(cells, i, cell)
      text_printf(text, "%s %d/%d", i ? " and" : "    reduction at", (int)json_integer_value(cell), whole(spec, "cells", 0));
  text_add(text, "\n");
}

static bool write_model(Text *text, json_t *spec, int batch, int side) {
  json_t *intensive = json_object_get(spec, "intensive");
  json_t *first = json_array_get(json_object_get(intensive, "normal"), 0);
  text_add(text, "import \"darts.adwp\"\n");
  text_printf(text, "data fixture { format synthetic image 3 x %d x %d classes %d }\n", side, side, whole(spec, "classes", 10));
  text_printf(text, "generator predict = softmax -> fc(%d) ->%s fc(weights)\n", whole(spec, "hidden", 64),
              json_is_true(json_object_get(spec, "relu")) ? " relu ->" : "");
  text_printf(text, "intensive kept of darts keep %zu {\n", json_array_size(first));
  if (!add_nodes(text, json_object_get(intensive, "normal"), "normal") ||
      !add_nodes(text, json_object_get(intensive, "reduce"), "reduction"))
    return false;
  text_add(text, "}\nhypernetwork net {\n");
  text_printf(text, "    stem conv(3, %d*C) -> bn(affine)\n", whole(spec, "stem_multiplier", 3));
  text_printf(text, "    cells %d of kept, channels C = %d\n", whole(spec, "cells", 0), whole(spec, "channels", 0));
  add_reductions(text, spec);
  text_add(text, "    predict conv weights by predict\n}\n");
  text_printf(text, search_text, batch);
  return true;
}

const Model *fixture_model(const char *spec, int64_t batch, int64_t side, Arena *arena, Err *err) {
  json_error_t why;
  Text text = {0};
  Diagnostics diagnostics = {0};
  const Model *model = NULL;
  json_t *parsed = json_loads(spec, JSON_REJECT_DUPLICATES, &why);
  if (!parsed)
    err_set(err, "the spec is no JSON: %s", why.text);
  else if (!write_model(&text, parsed, (int)batch, (int)side))
    err_set(err, "the spec has no intensive-space of [operation, source] pairs");
  else if (!(model = dsl_load_text("fixture.adwp", text.data, text.length, NULL, arena, &diagnostics)))
    err_set(err, "the spec's model is refused:\n%s", diagnostics.out.data ? diagnostics.out.data : "");
  text_free(&diagnostics.out);
  text_free(&text);
  json_decref(parsed);
  return model;
}

typedef struct Rename {
  const char *from, *to;
} Rename;

/* The first that is found in the name is replaced; a leading `^` stands for the beginning of the name. */
static const Rename renames[] = {
    {"^stem.", "stem.conv1."},
    {"^stem_bn.weight", "stem.bn1.scale"},
    {"^stem_bn.bias", "stem.bn1.shift"},
    {"^classifier.", "head.linear1."},
    {".pre0.conv.", ".pre0.pw1."},
    {".pre1.conv.", ".pre1.pw1."},
    {".pre0.conv1.", ".pre0.pw1."},
    {".pre0.conv2.", ".pre0.pw2."},
    {".reduce.conv1.", ".pw1."},
    {".reduce.conv2.", ".pw2."},
    {".conv.", "."},
};

const char *fixture_our_name(const char *oracle, Arena *arena) {
  for (size_t i = 0; i < sizeof renames / sizeof *renames; i++) {
    const char *from = renames[i].from;
    bool beginning = from[0] == '^';
    from += beginning;
    const char *at = strstr(oracle, from);
    if (!at || (beginning && at != oracle)) continue;
    return arena_printf(arena, "%.*s%s%s", (int)(at - oracle), oracle, renames[i].to, at + strlen(from));
  }
  return oracle;
}
