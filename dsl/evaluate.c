/* Arithmetic in double precision: whole numbers up to 2^53 and their quotients are exact enough to tell a half from a whole. */
#include "dsl/check.h"

#include <math.h>
#include <string.h>

static bool is_place_name(const char *name) {
  return same_text(name, "C") || same_text(name, "S") || same_text(name, "classes");
}

static bool unknown_value(Checker *checker, Name name, const Parameter *parameters) {
  Suggestion suggestion = suggest_start(name.text);
  for (const Parameter *parameter = parameters; parameter; parameter = parameter->next)
    suggest_offer(&suggestion, parameter->name.text);
  suggest_offer(&suggestion, "C");
  suggest_offer(&suggestion, "S");
  suggest_offer(&suggestion, "classes");
  diag_error(checker->diagnostics, name.where, "`%s` stands for no number here%s", name.text,
             suggest_text(&suggestion, checker->arena));
  return false;
}

bool check_number(Checker *checker, const Expr *expr, const Parameter *parameters) {
  switch (expr->kind) {
  case EXPR_NUMBER: return true;
  case EXPR_NAME:
    if (is_place_name(expr->name.text)) return true;
    for (const Parameter *parameter = parameters; parameter; parameter = parameter->next)
      if (same_text(parameter->name.text, expr->name.text)) return true;
    return unknown_value(checker, expr->name, parameters);
  case EXPR_NEGATE:
  case EXPR_PERCENT: return check_number(checker, expr->left, parameters);
  case EXPR_BINARY: {
    bool left = check_number(checker, expr->left, parameters), right = check_number(checker, expr->right, parameters);
    return left && right;
  }
  case EXPR_DAMAGED: return false;
  default: diag_error(checker->diagnostics, expr->where, "a number is wanted here"); return false;
  }
}

static bool evaluate_name(Checker *checker, const Expr *expr, const Environment *environment, double *value) {
  const char *name = expr->name.text;
  int index = 0;
  for (const Parameter *parameter = environment->parameters; parameter; parameter = parameter->next, index++) {
    if (!same_text(parameter->name.text, name)) continue;
    *value = environment->values[index];
    return true;
  }
  int known = same_text(name, "C")         ? environment->channels
              : same_text(name, "S")       ? environment->stride
              : same_text(name, "classes") ? environment->classes
                                           : -1;
  if (known < 0) return unknown_value(checker, expr->name, environment->parameters);
  if (!known) {
    if (check_first(checker, expr->where)) diag_error(checker->diagnostics, expr->where, "`%s` has no value here", name);
    return false;
  }
  *value = known;
  return true;
}

bool evaluate(Checker *checker, const Expr *expr, const Environment *environment, double *value) {
  double left = 0, right = 0;
  switch (expr->kind) {
  case EXPR_NUMBER: *value = expr->number; return true;
  case EXPR_NAME: return evaluate_name(checker, expr, environment, value);
  case EXPR_NEGATE:
    if (!evaluate(checker, expr->left, environment, &left)) return false;
    *value = -left;
    return true;
  case EXPR_PERCENT:
    if (!evaluate(checker, expr->left, environment, &left)) return false;
    *value = left / 100;
    return true;
  case EXPR_BINARY:
    if (!evaluate(checker, expr->left, environment, &left) || !evaluate(checker, expr->right, environment, &right)) return false;
    *value = expr->operator== '+'   ? left + right
             : expr->operator== '-' ? left - right
             : expr->operator== '*' ? left * right
                                    : left / right;
    if (isfinite(*value)) return true;
    if (check_first(checker, expr->where))
      diag_error(checker->diagnostics, expr->where,
                 right == 0 && expr->operator== '/' ? "this divides by zero" : "this number is too large");
    return false;
  case EXPR_DAMAGED: return false;
  default:
    if (check_first(checker, expr->where)) diag_error(checker->diagnostics, expr->where, "a number is wanted here");
    return false;
  }
}

bool evaluate_whole(Checker *checker, const Expr *expr, const Environment *environment, int low, int high, const char *what,
                    int *value) {
  static const Environment nothing = {0};
  double number = 0;
  if (!evaluate(checker, expr, environment ? environment : &nothing, &number)) return false;
  if (number == floor(number) && number >= low && number <= high) {
    *value = (int)number;
    return true;
  }
  if (check_first(checker, expr->where))
    diag_error(checker->diagnostics, expr->where, "%s must be a whole number within %d..%d, and this is %.10g", what, low, high,
               number);
  return false;
}

bool evaluate_real(Checker *checker, const Expr *expr, double low, double high, const char *what, double *value) {
  static const Environment nothing = {0};
  if (!evaluate(checker, expr, &nothing, value)) return false;
  if (*value >= low && *value <= high) return true;
  diag_error(checker->diagnostics, expr->where, "%s must be within %g..%g, and this is %.10g", what, low, high, *value);
  return false;
}

bool evaluate_pair(Checker *checker, const Expr *expr, const Environment *environment, int low, int high, const char *what,
                   int value[2]) {
  if (expr->kind != EXPR_SIZE) {
    if (!evaluate_whole(checker, expr, environment, low, high, what, &value[0])) return false;
    value[1] = value[0];
    return true;
  }
  const Expr *first = expr->items, *second = first->next;
  if (second->next) {
    if (check_first(checker, expr->where))
      diag_error(checker->diagnostics, expr->where, "%s has two sides, height x width", what);
    return false;
  }
  return evaluate_whole(checker, first, environment, low, high, what, &value[0]) &&
         evaluate_whole(checker, second, environment, low, high, what, &value[1]);
}
