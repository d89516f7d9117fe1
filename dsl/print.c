/* The Model as text: one self-contained file in which every default stands, which loads to the same Model again.
 *
 * Numbers come from the Model (`--set` is in them), chains and operations from the syntax they were read from. */
#include "dsl/check.h"
#include "dsl/dsl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- expressions ---- */

/* The shortest decimal that reads back as the same double. */
static void print_number(Text *out, double number) {
  char text[40];
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    if (strtod(text, NULL) == number) break;
  }
  text_add(out, text);
}

static void print_expr(Text *out, const Expr *expr, int strength);

static void print_list(Text *out, const Expr *items, const char *between, int strength) {
  for (const Expr *item = items; item; item = item->next) {
    print_expr(out, item, strength);
    if (item->next) text_add(out, between);
  }
}

static void print_arguments(Text *out, const Argument *arguments) {
  for (const Argument *argument = arguments; argument; argument = argument->next) {
    if (argument->name.text) text_printf(out, "%s: ", argument->name.text);
    print_expr(out, argument->value, 0);
    if (argument->schedule.text) text_printf(out, " %s", argument->schedule.text);
    if (argument->next) text_add(out, ", ");
  }
}

/* How tightly a kind binds: chain and size 0, sum 1, product 2, unary 3, the rest 4. */
static int strength_of(const Expr *expr) {
  switch (expr->kind) {
  case EXPR_CHAIN:
  case EXPR_SIZE:
  case EXPR_RANGE: return 0;
  case EXPR_BINARY: return expr->operator== '+' || expr->operator== '-' ? 1 : 2;
  case EXPR_NEGATE: return 3;
  default: return 4;
  }
}

static void print_expr(Text *out, const Expr *expr, int strength) {
  int own = strength_of(expr);
  if (own < strength) text_add(out, "(");
  switch (expr->kind) {
  case EXPR_NUMBER:
    if (expr->whole)
      text_printf(out, "%llu", (unsigned long long)expr->exact);
    else
      print_number(out, expr->number);
    break;
  case EXPR_NAME: text_add(out, expr->name.text); break;
  case EXPR_CALL:
    text_printf(out, "%s(", expr->name.text);
    print_arguments(out, expr->arguments);
    text_add(out, ")");
    break;
  case EXPR_LIST:
    text_add(out, "[");
    print_list(out, expr->items, ", ", 0);
    text_add(out, "]");
    break;
  case EXPR_CHAIN: print_list(out, expr->items, " -> ", 1); break;
  case EXPR_SIZE: print_list(out, expr->items, " x ", 1); break;
  case EXPR_BINARY:
    print_expr(out, expr->left, own);
    text_printf(out, own == 1 ? " %c " : "%c", expr->operator);
    print_expr(out, expr->right, own + 1);
    break;
  case EXPR_NEGATE:
    text_add(out, "-");
    print_expr(out, expr->left, 3);
    break;
  case EXPR_PERCENT:
    print_expr(out, expr->left, 4);
    text_add(out, "%");
    break;
  case EXPR_RANGE:
    print_expr(out, expr->left, 1);
    text_add(out, "..");
    print_expr(out, expr->right, 1);
    break;
  case EXPR_DAMAGED: break;
  }
  if (own < strength) text_add(out, ")");
}

/* ---- operations ---- */

static const char *comparator(char operator) {
  return operator== '=' ? "==" :
         operator== '!' ? "!="
         :
         operator== 'l' ? "<="
         :
         operator== 'g' ? ">="
         :
         operator== '<' ? "<"
                        : ">";
}

static void print_op(Text *out, const Declaration *op) {
  text_printf(out, "%sop %s", op->own ? "own " : "", op->name.text);
  for (const Parameter *parameter = op->parameters; parameter; parameter = parameter->next)
    text_printf(out, "%s%s%s", parameter == op->parameters ? "(" : ", ", parameter->name.text, parameter->next ? "" : ")");
  text_add(out, " = ");
  for (const Case *one = op->cases; one; one = one->next) {
    if (one->when)
      text_add(out, "when ");
    else if (one != op->cases)
      text_add(out, "else: ");
    for (const Comparison *when = one->when; when; when = when->next) {
      print_expr(out, when->left, 1);
      text_printf(out, " %s ", comparator(when->operator));
      print_expr(out, when->right, 1);
      text_add(out, when->next ? " and " : ": ");
    }
    print_expr(out, one->chain, 0);
    text_add(out, one->next ? ", " : "\n");
  }
}

typedef struct Printed { /* operations that stand in the text already */
  Text *out;
  const Scope *scope;
  const Declaration **ops;
  size_t count, room;
} Printed;

static void print_ops_of(Printed *printed, const Expr *expr);

static void print_op_once(Printed *printed, const char *name) {
  const Declaration *op = scope_find(printed->scope, DECLARE_OP, name);
  if (!op) return;
  for (size_t i = 0; i < printed->count; i++)
    if (printed->ops[i] == op) return;
  if (printed->count == printed->room) {
    printed->room = printed->room ? 2 * printed->room : 16;
    printed->ops = memory_resize(printed->ops, printed->room * sizeof *printed->ops);
  }
  printed->ops[printed->count++] = op;
  for (const Case *one = op->cases; one; one = one->next) print_ops_of(printed, one->chain);
  print_op(printed->out, op);
}

/* Prints the operations that a chain uses, each after those that it uses itself. */
static void print_ops_of(Printed *printed, const Expr *expr) {
  if (expr->kind == EXPR_NAME || expr->kind == EXPR_CALL) print_op_once(printed, expr->name.text);
  for (const Expr *item = expr->kind == EXPR_CHAIN ? expr->items : NULL; item; item = item->next) print_ops_of(printed, item);
  for (const Argument *argument = expr->kind == EXPR_CALL ? expr->arguments : NULL; argument; argument = argument->next)
    print_ops_of(printed, argument->value);
}

static void print_ops(Text *out, const ModelSyntax *syntax) {
  Printed printed = {.out = out, .scope = syntax->scope};
  for (const Entry *entry = syntax->space->entries; entry; entry = entry->next) print_ops_of(&printed, entry->chain);
  print_ops_of(&printed, syntax->backbone.stem);
  print_ops_of(&printed, syntax->backbone.preprocess);
  print_ops_of(&printed, syntax->backbone.after);
  print_ops_of(&printed, syntax->backbone.head);
  if (printed.count) text_add(out, "\n");
  free(printed.ops);
}

static void print_space(Text *out, const Declaration *space) {
  text_printf(out, "space %s = {\n", space->name.text);
  for (const Entry *entry = space->entries; entry; entry = entry->next) {
    text_printf(out, "    %s", entry->name.text);
    if (!is_name(entry->chain, entry->name.text)) {
      text_add(out, " = ");
      print_expr(out, entry->chain, 0);
    }
    text_add(out, entry->next ? ",\n" : "\n");
  }
  text_add(out, "}\n\n");
}

/* ---- declarations ---- */

static void print_cell(Text *out, const char *name, const CellSpace *cell) {
  if (!cell->given) return;
  text_printf(out, "    %s {\n", name);
  for (int j = 0; j < cell->count; j++) {
    text_printf(out, "        node %d: ", j + 2);
    for (int k = 0; k < cell->nodes[j].count; k++)
      text_printf(out, "%s%s(%d)", k ? ", " : "", cell->nodes[j].pairs[k].entry->name.text, cell->nodes[j].pairs[k].source);
    text_add(out, "\n");
  }
  text_add(out, "    }\n");
}

static void print_intensive(Text *out, const ModelSyntax *syntax) {
  const IntensiveSpace *pairs = syntax->pairs;
  text_printf(out, "intensive %s of %s keep %d {\n", syntax->intensive->name.text, syntax->space->name.text, pairs->keep);
  print_cell(out, "normal", &pairs->kinds[0]);
  print_cell(out, "reduction", &pairs->kinds[1]);
  text_add(out, "}\n\n");
}

static void print_numbers(Text *out, const char *word, const double *numbers, int count) {
  text_printf(out, "    %-9s[", word);
  for (int i = 0; i < count; i++) {
    if (i) text_add(out, ", ");
    print_number(out, numbers[i]);
  }
  text_add(out, "]\n");
}

static void print_data(Text *out, const DataSet *data) {
  text_printf(out, "data %s {\n    format   %s\n", data->name, data->format);
  text_printf(out, "    image    %d x %d x %d\n    classes  %d\n", data->image.channels, data->image.height, data->image.width,
              data->classes);
  print_numbers(out, "mean", data->mean, data->image.channels);
  print_numbers(out, "std", data->std, data->image.channels);
  text_add(out, "    split    ");
  print_number(out, data->train_fraction);
  text_add(out, " train, ");
  print_number(out, 1 - data->train_fraction);
  text_add(out, " valid\n    augment  ");
  const char *arrow = "";
  if (data->crop_pad) text_printf(out, "crop(pad: %d)", data->crop_pad), arrow = " -> ";
  if (data->flip) text_printf(out, "%sflip", arrow), arrow = " -> ";
  if (data->cutout) text_printf(out, "%scutout(%d)", arrow, data->cutout), arrow = " -> ";
  text_add(out, *arrow ? "\n" : "none\n");
  if (data->train_images)
    text_printf(out, "    train    %d images\n    test     %d images\n", data->train_images, data->test_images);
  text_add(out, "}\n\n");
}

static void print_chain(Text *out, const char *word, const Expr *chain, const char *end) {
  text_printf(out, "    %-17s", word);
  print_expr(out, chain, 0);
  text_add(out, end);
}

static void print_hypernetwork(Text *out, const Model *model) {
  const ModelSyntax *syntax = model->syntax;
  const Backbone *backbone = &syntax->backbone;
  text_printf(out, "hypernetwork %s {\n", model->name);
  print_chain(out, "stem", backbone->stem, "\n");
  text_printf(out, "    cells            %d of %s\n    channels         C = %d\n", model->cell_count,
              syntax->intensive->name.text, model->channels);
  text_add(out, "    reduction        at [");
  const char *comma = "";
  for (int l = 0; l < model->cell_count; l++) {
    if (!model->cells[l].reduction) continue;
    text_printf(out, "%s%d", comma, l);
    comma = ", ";
  }
  text_add(out, "]\n");
  print_chain(out, "preprocess", backbone->preprocess, "\n");
  print_chain(out, "after reduction", backbone->after, "\n");
  text_printf(out, "    predict          conv weights by %s\n", syntax->generator->name.text);
  print_chain(out, "head", backbone->head, " -> cross_entropy\n}\n\n");
}

static void print_named(Text *out, const char *name, double number, const char *end) {
  text_printf(out, "%s: ", name);
  print_number(out, number);
  text_add(out, end);
}

static void print_search(Text *out, const Model *model) {
  const Search *search = &model->search;
  text_printf(out, "search %s on %s {\n    train    %d epochs\n", model->name, model->data.name, search->train);
  text_printf(out, "    cross    %d..%d\n    total    %d epochs\n", search->cross_start, search->cross_end, search->total);
  text_printf(out, "    batch    %d\n    weights  sgd(lr: ", search->batch);
  print_number(out, search->lr_start);
  text_add(out, " -> ");
  print_number(out, search->lr_end);
  print_named(out, " cosine, momentum", search->momentum, ", ");
  print_named(out, "decay", search->decay, ", ");
  if (search->clip == 0)
    text_add(out, "clip: none)\n");
  else
    print_named(out, "clip", search->clip, ")\n");
  print_named(out, "    alpha    adam(lr", search->alpha_lr, ", betas: [");
  print_number(out, search->alpha_beta1);
  text_add(out, ", ");
  print_number(out, search->alpha_beta2);
  print_named(out, "], epsilon", search->alpha_epsilon, ", ");
  print_named(out, "decay", search->alpha_decay, ")\n    scale    ");
  print_number(out, search->alpha_scale);
  text_add(out, "\n    initial  ");
  print_number(out, search->alpha_initial);
  text_printf(out, "\n    keep     top %d\n    result   %s\n    seed     %llu\n}\n", search->keep, search->last ? "last" : "best",
              (unsigned long long)search->seed);
}

void dsl_print_model(const Model *model, Text *out) {
  const ModelSyntax *syntax = model->syntax;
  print_ops(out, syntax);
  print_space(out, syntax->space);
  print_intensive(out, syntax);
  print_data(out, &model->data);
  text_printf(out, "generator %s = softmax -> fc(%d)%s -> fc(weights)\n\n", syntax->generator->name.text, model->generator.hidden,
              model->generator.activation == ACTIVATION_RELU ? " -> relu" : "");
  print_hypernetwork(out, model);
  print_search(out, model);
}
