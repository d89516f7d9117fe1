/* Operations and spaces without their numbers: every name is known, every call has the arguments it needs, and no operation is
 * defined by itself. An operation that nothing uses is checked as well. */
#include "dsl/check.h"

#include <string.h>

typedef struct PrimitiveRow {
  const char *name, *required, *optional;
} PrimitiveRow;

static const PrimitiveRow primitives[WORD_COUNT] = {
#define PRIMITIVE(NAME, word, required, optional) {word, required, optional},
#include "dsl/primitives.def"
#undef PRIMITIVE
};

/* The names of arguments, each as a string of its own: `primitives.def` writes them divided by spaces. */
static const char *const argument_names[] = {"kernel", "channels", "stride", "dilation", "pad", "groups",
                                             "affine", "y",        "x",      "features", "..."};

bool primitive_find(const char *name, PrimitiveWord *word) {
  for (int i = 0; i < WORD_COUNT; i++) {
    if (!same_text(primitives[i].name, name)) continue;
    *word = (PrimitiveWord)i;
    return true;
  }
  return false;
}

static void add_arguments(Signature *signature, const char *names) {
  while (*names) {
    size_t length = strcspn(names, " ");
    for (size_t i = 0; i < sizeof argument_names / sizeof *argument_names; i++)
      if (strlen(argument_names[i]) == length && !strncmp(argument_names[i], names, length))
        signature->arguments[signature->count++] = argument_names[i];
    names += length + (names[length] == ' ');
  }
}

Signature primitive_signature(PrimitiveWord word) {
  Signature signature = {.name = primitives[word].name};
  add_arguments(&signature, primitives[word].required);
  signature.required = signature.count;
  add_arguments(&signature, primitives[word].optional);
  signature.variadic = signature.count && same_text(signature.arguments[0], "...");
  return signature;
}

static Signature op_signature(const Declaration *op) {
  Signature signature = {.name = op->name.text};
  for (const Parameter *parameter = op->parameters; parameter; parameter = parameter->next)
    signature.arguments[signature.count++] = parameter->name.text;
  signature.required = signature.count;
  return signature;
}

static const char *listed(Checker *checker, const Signature *signature) {
  Text text = {0};
  for (int i = 0; i < signature->count; i++)
    text_printf(&text, "%s%s%s", i ? ", " : "", signature->arguments[i], i >= signature->required ? ": ..." : "");
  const char *copy = arena_copy_string(checker->arena, text.data ? text.data : "", text.length);
  text_free(&text);
  return copy;
}

static bool bind_named(Checker *checker, const Argument *argument, const Signature *signature, const Argument *bound[]) {
  Suggestion suggestion = suggest_start(argument->name.text);
  for (int i = 0; i < signature->count; i++) {
    suggest_offer(&suggestion, signature->arguments[i]);
    if (!same_text(signature->arguments[i], argument->name.text)) continue;
    if (!bound[i]) {
      bound[i] = argument;
      return true;
    }
    diag_error(checker->diagnostics, argument->name.where, "`%s` is given twice", argument->name.text);
    return false;
  }
  diag_error(checker->diagnostics, argument->name.where, "`%s` has no argument `%s`%s", signature->name, argument->name.text,
             suggest_text(&suggestion, checker->arena));
  return false;
}

bool bind_arguments(Checker *checker, const Expr *call, const Signature *signature, const Argument *bound[MOST_ARGUMENTS]) {
  memset(bound, 0, MOST_ARGUMENTS * sizeof *bound);
  if (call->damaged) return false;
  bool sound = true;
  int place = 0, too_many = 0;
  for (const Argument *argument = call->arguments; argument; argument = argument->next) {
    if (argument->name.text) {
      sound &= bind_named(checker, argument, signature, bound);
    } else if (place == signature->count) {
      if (!too_many++)
        diag_error(checker->diagnostics, argument->value->where, "`%s(%s)` takes no more than %d argument%s", signature->name,
                   listed(checker, signature), signature->count, signature->count == 1 ? "" : "s");
      sound = false;
    } else if (bound[place]) {
      diag_error(checker->diagnostics, argument->value->where, "`%s` is given twice", signature->arguments[place++]);
      sound = false;
    } else
      bound[place++] = argument;
  }
  for (int i = 0; i < signature->required && sound; i++) {
    if (bound[i]) continue;
    diag_error(checker->diagnostics, call->name.where, "`%s(%s)` lacks its argument `%s`", signature->name,
               listed(checker, signature), signature->arguments[i]);
    sound = false;
  }
  return sound;
}

static bool check_schedule(Checker *checker, const Argument *argument) {
  if (!argument->schedule.text) return true;
  diag_error(checker->diagnostics, argument->schedule.where, "unexpected `%s` behind a value", argument->schedule.text);
  return false;
}

static bool check_branches(Checker *checker, const Expr *call, const Signature *signature, const Parameter *parameters) {
  bool sound = !call->damaged;
  if (!call->arguments && sound) {
    diag_error(checker->diagnostics, call->name.where, "`%s(...)` takes one chain or more", signature->name);
    return false;
  }
  for (const Argument *argument = call->arguments; argument; argument = argument->next) {
    if (argument->name.text) {
      diag_error(checker->diagnostics, argument->name.where, "`%s` takes chains, without names", signature->name);
      sound = false;
    }
    sound &= check_schedule(checker, argument);
    sound &= check_chain(checker, argument->value, parameters);
  }
  return sound;
}

/* Windows may have a height and a width of their own. */
static bool check_argument(Checker *checker, const char *name, const Expr *value, const Parameter *parameters) {
  if (same_text(name, "affine")) {
    if (value->kind == EXPR_NAME && same_text(value->name.text, "affine")) return true;
    if (value->kind != EXPR_DAMAGED) diag_error(checker->diagnostics, value->where, "`bn` takes nothing, or `affine`");
    return false;
  }
  bool pair = same_text(name, "kernel") || same_text(name, "stride") || same_text(name, "pad");
  if (!pair || value->kind != EXPR_SIZE) return check_number(checker, value, parameters);
  bool sound = true;
  for (const Expr *item = value->items; item; item = item->next) sound &= check_number(checker, item, parameters);
  return sound;
}

static bool check_call(Checker *checker, const Expr *call, const Signature *signature, const Parameter *parameters) {
  if (signature->variadic) return check_branches(checker, call, signature, parameters);
  const Argument *bound[MOST_ARGUMENTS];
  bool sound = bind_arguments(checker, call, signature, bound);
  for (int i = 0; i < signature->count; i++) {
    if (!bound[i]) continue;
    sound &= check_schedule(checker, bound[i]);
    sound &= check_argument(checker, signature->arguments[i], bound[i]->value, parameters);
  }
  return sound;
}

static bool unknown_operation(Checker *checker, Name name) {
  if (checker->incomplete) return false;
  Suggestion suggestion = suggest_start(name.text);
  for (int i = 0; i < WORD_COUNT; i++) suggest_offer(&suggestion, primitives[i].name);
  if (!diag_full(checker->diagnostics)) scope_suggest(checker->scope, DECLARE_OP, &suggestion);
  diag_error(checker->diagnostics, name.where, "unknown operation `%s`%s", name.text, suggest_text(&suggestion, checker->arena));
  return false;
}

static bool check_operation(Checker *checker, Expr *expr, const Parameter *parameters) {
  PrimitiveWord word;
  Signature signature;
  if (primitive_find(expr->name.text, &word))
    signature = primitive_signature(word);
  else {
    Declaration *op = scope_find(checker->scope, DECLARE_OP, expr->name.text);
    if (!op) return unknown_operation(checker, expr->name);
    if (op->mark == 0) check_op(checker, op);
    if (op->mark == 1) {
      diag_error(checker->diagnostics, expr->name.where, "operation `%s` is defined by itself", op->name.text);
      return false;
    }
    if (op->broken) return false;
    signature = op_signature(op);
  }
  return check_call(checker, expr, &signature, parameters);
}

bool check_chain(Checker *checker, Expr *expr, const Parameter *parameters) {
  bool sound = true;
  switch (expr->kind) {
  case EXPR_CHAIN:
    for (Expr *item = expr->items; item; item = item->next) sound &= check_chain(checker, item, parameters);
    return sound;
  case EXPR_NAME:
  case EXPR_CALL: return check_operation(checker, expr, parameters);
  case EXPR_DAMAGED: return false;
  default: diag_error(checker->diagnostics, expr->where, "an operation is wanted here"); return false;
  }
}

static bool check_parameters(Checker *checker, const Declaration *op) {
  int count = 0;
  bool sound = true;
  for (const Parameter *parameter = op->parameters; parameter; parameter = parameter->next) {
    const char *name = parameter->name.text;
    if (++count == MOST_ARGUMENTS + 1) {
      diag_error(checker->diagnostics, parameter->name.where, "an operation has at most %d parameters", MOST_ARGUMENTS);
      return false;
    }
    if (same_text(name, "C") || same_text(name, "S") || same_text(name, "classes")) {
      diag_error(checker->diagnostics, parameter->name.where, "`%s` has a meaning of its own and can be no parameter", name);
      sound = false;
    }
    for (const Parameter *other = op->parameters; other != parameter; other = other->next) {
      if (!same_text(other->name.text, name)) continue;
      diag_error(checker->diagnostics, parameter->name.where, "parameter `%s` is there twice", name);
      sound = false;
      break;
    }
  }
  return sound;
}

static int height_of(const Checker *checker, const Expr *expr) {
  int height = 0;
  if (expr->kind == EXPR_NAME || expr->kind == EXPR_CALL) {
    const Declaration *op = scope_find(checker->scope, DECLARE_OP, expr->name.text);
    if (op) height = op->height + 1;
  }
  for (const Expr *item = expr->kind == EXPR_CHAIN ? expr->items : NULL; item; item = item->next) {
    int below = height_of(checker, item);
    if (below > height) height = below;
  }
  for (const Argument *argument = expr->kind == EXPR_CALL ? expr->arguments : NULL; argument; argument = argument->next) {
    int below = height_of(checker, argument->value);
    if (below > height) height = below;
  }
  return height;
}

/* Marks: 0 not seen, 1 open (its definition is being walked), 2 done. */
void check_op(Checker *checker, Declaration *op) {
  if (op->mark) return;
  op->mark = 1;
  op->broken = op->damaged || !check_parameters(checker, op) || checker->walk > LIMIT_HEIGHT;
  if (checker->walk++ <= LIMIT_HEIGHT) {
    for (Case *one = op->cases; one; one = one->next) {
      for (Comparison *when = one->when; when; when = when->next) {
        op->broken |= !check_number(checker, when->left, op->parameters);
        op->broken |= !check_number(checker, when->right, op->parameters);
      }
      op->broken |= !check_chain(checker, one->chain, op->parameters);
      int height = height_of(checker, one->chain);
      if (height > op->height) op->height = height;
    }
  }
  checker->walk--;
  if (op->height > LIMIT_HEIGHT || checker->walk > LIMIT_HEIGHT) {
    if (!op->broken || checker->walk == LIMIT_HEIGHT + 1)
      diag_error(checker->diagnostics, op->name.where,
                 "operation `%s` is defined through more than %d others, one inside another", op->name.text, LIMIT_HEIGHT);
    op->broken = true;
  }
  op->mark = 2;
}

void check_space(Checker *checker, Declaration *space) {
  int count = 0;
  for (Entry *entry = space->entries; entry; entry = entry->next, count++) {
    Name name = entry->name;
    if (!entry->chain) {
      Expr *call = ARENA_NEW(checker->arena, Expr);
      *call = (Expr){.kind = EXPR_NAME, .where = name.where, .name = name};
      entry->chain = call;
    }
    entry->broken = !check_chain(checker, entry->chain, NULL);
    for (const Entry *other = space->entries; other != entry; other = other->next) {
      if (!same_text(other->name.text, name.text)) continue;
      diag_error(checker->diagnostics, name.where, "`%s` is in the space twice", name.text);
      diag_note(checker->diagnostics, other->name.where, "the first one is here");
      break;
    }
    if (count == LIMIT_ENTRIES) {
      diag_error(checker->diagnostics, name.where, "a space has at most %d operations", LIMIT_ENTRIES);
      space->broken = true;
      break;
    }
  }
  if (!count && !space->damaged) diag_error(checker->diagnostics, space->name.where, "space `%s` is empty", space->name.text);
}
