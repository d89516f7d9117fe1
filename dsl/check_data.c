/* `data` blocks. Every setting is read even after an error in another, so that one run tells all. */
#include "dsl/check.h"

#include <math.h>
#include <string.h>

typedef struct Format {
  const char *name;
  Shape image; /* fixed by the format; 0: free */
  int classes; /* the same */
  bool drawn;  /* has numbers of images */
} Format;

static const Format formats[] = {
    {"cifar10-binary", {3, 32, 32}, 10, false},
    {"synthetic", {0}, 0, true},
};

static const Format *read_format(Checker *checker, const Declaration *data) {
  const Setting *setting = setting_of(checker, data, SETTING_FORMAT);
  if (!setting) {
    if (!data->damaged) diag_error(checker->diagnostics, data->name.where, "data `%s` lacks its `format`", data->name.text);
    return NULL;
  }
  Suggestion suggestion = suggest_start(setting->name.text);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    if (same_text(formats[i].name, setting->name.text)) return &formats[i];
    suggest_offer(&suggestion, formats[i].name);
  }
  diag_error(checker->diagnostics, setting->name.where,
             "unknown format `%s`, which is neither `cifar10-binary` nor `synthetic`%s", setting->name.text,
             suggest_text(&suggestion, checker->arena));
  return NULL;
}

static bool read_image(Checker *checker, const Declaration *data, const Format *format, Shape *image) {
  const Setting *setting = setting_of(checker, data, SETTING_IMAGE);
  const Expr *value = setting->value, *item = value->kind == EXPR_SIZE ? value->items : NULL;
  if (!check_unit(checker, setting, NULL) || value->kind == EXPR_DAMAGED) return false;
  int count = 0;
  for (const Expr *one = item; one; one = one->next) count++;
  if (count != 3) {
    diag_error(checker->diagnostics, value->where, "an image is channels x height x width, as in `3 x 32 x 32`");
    return false;
  }
  if (!evaluate_whole(checker, item, NULL, 1, LIMIT_CHANNELS, "an image's channels", &image->channels)) return false;
  if (!evaluate_whole(checker, item->next, NULL, 1, LIMIT_SIDE, "an image's height", &image->height)) return false;
  if (!evaluate_whole(checker, item->next->next, NULL, 1, LIMIT_SIDE, "an image's width", &image->width)) return false;
  if ((int64_t)image->channels * image->height * image->width > LIMIT_IMAGE) {
    diag_error(checker->diagnostics, value->where, "an image has at most %d numbers", LIMIT_IMAGE);
    return false;
  }
  if (!format || !format->image.channels || shape_equal(format->image, *image)) return true;
  diag_error(checker->diagnostics, value->where, "images of `%s` are %s, and not %s", format->name,
             shape_text(checker->arena, format->image), shape_text(checker->arena, *image));
  return false;
}

static bool read_classes(Checker *checker, const Declaration *data, const Format *format, int *classes) {
  const Setting *setting = setting_of(checker, data, SETTING_CLASSES);
  if (!check_unit(checker, setting, NULL) || !evaluate_whole(checker, setting->value, NULL, 2, LIMIT_CLASSES, "classes", classes))
    return false;
  if (!format || !format->classes || format->classes == *classes) return true;
  diag_error(checker->diagnostics, setting->value->where, "`%s` has %d classes, and not %d", format->name, format->classes,
             *classes);
  return false;
}

/* `mean` and `std`: a number a channel. */
static const double *read_channels(Checker *checker, const Declaration *data, SettingKind kind, int channels, double low) {
  const Setting *setting = setting_of(checker, data, kind);
  const Expr *value = setting->value;
  if (!check_unit(checker, setting, NULL) || value->kind == EXPR_DAMAGED) return NULL;
  bool sound = true;
  int count = 0;
  for (const Expr *item = value->kind == EXPR_LIST ? value->items : NULL; item; item = item->next) count++;
  double *numbers = ARENA_ARRAY(checker->arena, double, count), *next = numbers;
  for (const Expr *item = count ? value->items : NULL; item; item = item->next)
    sound &= evaluate_real(checker, item, low, 1e6, setting_word(kind), next++);
  if (!sound) return NULL;
  if (channels && count != channels) {
    bool given = setting_given(checker, data, kind) != NULL;
    diag_error(checker->diagnostics, given ? value->where : data->name.where,
               "`%s` must be a list of %d number%s, one a channel of the image%s", setting_word(kind), channels,
               channels == 1 ? "" : "s", given ? "" : "; the default is CIFAR-10's");
    return NULL;
  }
  return numbers;
}

static bool read_split(Checker *checker, const Declaration *data, double *train) {
  const Setting *setting = setting_of(checker, data, SETTING_SPLIT);
  double valid = 0;
  bool sound = evaluate_real(checker, setting->value, 1e-6, 1 - 1e-6, "the share of train", train);
  sound &= evaluate_real(checker, setting->second, 1e-6, 1 - 1e-6, "the share of valid", &valid);
  if (!sound || fabs(*train + valid - 1) < 1e-9) return sound;
  diag_error(checker->diagnostics, setting->value->where, "the two shares must add up to 100%%, and these make %.10g%%",
             100 * (*train + valid));
  return false;
}

static bool read_step(Checker *checker, const Expr *step, int *stage, DataSet *data) {
  static const char *const words[] = {"crop", "flip", "cutout"};
  const char *name = step->kind == EXPR_NAME || step->kind == EXPR_CALL ? step->name.text : "";
  if (step->kind == EXPR_DAMAGED || step->damaged) return false;
  Suggestion suggestion = suggest_start(name);
  int at = -1;
  for (int i = 0; i < 3; i++) {
    if (same_text(words[i], name)) at = i;
    suggest_offer(&suggestion, words[i]);
  }
  if (at < 0) {
    diag_error(checker->diagnostics, step->where, "augmentation is made of `crop(pad: 4)`, `flip` and `cutout(16)`%s",
               suggest_text(&suggestion, checker->arena));
    return false;
  }
  if (at < *stage) {
    diag_error(checker->diagnostics, step->where, "an image is cropped, then flipped, then cut out, each at most once");
    return false;
  }
  *stage = at + 1;
  if (at == 1) {
    data->flip = true;
    if (!step->arguments) return true;
    diag_error(checker->diagnostics, step->arguments->value->where, "`flip` takes no argument");
    return false;
  }
  const Signature signature = {.name = name, .arguments = {at ? "side" : "pad"}, .required = 1, .count = 1};
  const Argument *bound[MOST_ARGUMENTS];
  if (!bind_arguments(checker, step, &signature, bound)) return false;
  int smaller = data->image.height < data->image.width ? data->image.height : data->image.width;
  return evaluate_whole(checker, bound[0]->value, NULL, 1, at ? smaller : LIMIT_SIDE,
                        at ? "the side of a cutout" : "the padding of a crop", at ? &data->cutout : &data->crop_pad);
}

static bool read_augment(Checker *checker, const Declaration *declaration, DataSet *data) {
  const Setting *setting = setting_of(checker, declaration, SETTING_AUGMENT);
  int stage = 0;
  if (!check_unit(checker, setting, NULL)) return false;
  if (is_name(setting->value, "none")) return true;
  if (setting->value->kind != EXPR_CHAIN) return read_step(checker, setting->value, &stage, data);
  for (const Expr *step = setting->value->items; step; step = step->next)
    if (!read_step(checker, step, &stage, data)) return false;
  return true;
}

static bool read_images(Checker *checker, const Declaration *declaration, const Format *format, SettingKind kind, int *images) {
  const Setting *given = setting_given(checker, declaration, kind), *setting = setting_of(checker, declaration, kind);
  if (format && !format->drawn && given) {
    diag_error(checker->diagnostics, given->where, "the files of `%s` say how many images there are; `%s` is for `synthetic`",
               format->name, setting_word(kind));
    return false;
  }
  if (format && !format->drawn) return true;
  return check_unit(checker, setting, "images") &&
         evaluate_whole(checker, setting->value, NULL, 1, 10000000, setting_word(kind), images);
}

bool check_data(Checker *checker, const Declaration *declaration, DataSet *data) {
  *data = (DataSet){.name = declaration->name.text};
  check_twice(checker, declaration);
  const Format *format = read_format(checker, declaration);
  bool sound = format && !declaration->damaged;
  if (format) data->format = format->name;
  bool image = read_image(checker, declaration, format, &data->image);
  sound &= image & read_classes(checker, declaration, format, &data->classes);
  data->mean = read_channels(checker, declaration, SETTING_MEAN, image ? data->image.channels : 0, -1e6);
  data->std = read_channels(checker, declaration, SETTING_STD, image ? data->image.channels : 0, 1e-6);
  sound &= data->mean && data->std;
  sound &= read_split(checker, declaration, &data->train_fraction);
  sound &= read_augment(checker, declaration, data);
  sound &= read_images(checker, declaration, format, SETTING_TRAIN, &data->train_images);
  sound &= read_images(checker, declaration, format, SETTING_TEST, &data->test_images);
  return sound;
}
