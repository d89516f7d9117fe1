/* Synthetic images: ten classes of shapes, drawn from random numbers.
 *
 * Image i shows shape i % classes, brighter than its background, at a random place, turned and sized at random, in random
 * colours, on cloudy noise with grain over everything. So a class is a form and not a colour or a place: a linear classifier does
 * not get far, and a few convolutions do. The images are the same for every run, whatever its seed: they are a data set. All
 * arithmetic is exactly rounded, as in random.c, so that they are also the same on every machine. */
#include "runtime/dataset_private.h"
#include "runtime/random.h"

#include <math.h>
#include <stdlib.h>

enum { SHAPES = 10, GRID = 5, MOST_CHANNELS = 8 };

/* Units of the local coordinates (u, v): the shape's radius. */
typedef bool Inside(double u, double v);

static double larger(double a, double b) {
  return a > b ? a : b;
}
static double smaller(double a, double b) {
  return a < b ? a : b;
}

static bool inside_disc(double u, double v) {
  return u * u + v * v < 0.8;
}

static bool inside_ring(double u, double v) {
  double r = u * u + v * v;
  return r > 0.4 && r < 1.1;
}

static bool inside_square(double u, double v) {
  return larger(fabs(u), fabs(v)) < 0.8;
}

static bool inside_frame(double u, double v) {
  double r = larger(fabs(u), fabs(v));
  return r > 0.55 && r < 0.95;
}

static bool inside_triangle(double u, double v) {
  return v > -0.6 && 1.7320508 * fabs(u) + v < 1.1;
}

static bool inside_cross(double u, double v) {
  return smaller(fabs(u), fabs(v)) < 0.28 && larger(fabs(u), fabs(v)) < 1.05;
}

static bool inside_bar(double u, double v) {
  return fabs(u) < 1.15 && fabs(v) < 0.3;
}

static bool inside_stripes(double u, double v) {
  return fabs(u) < 1 && fabs(v) > 0.3 && fabs(v) < 0.75;
}

static bool inside_half(double u, double v) {
  return u * u + v * v < 1.3 && v > 0;
}

static bool inside_dots(double u, double v) {
  double du = fabs(u) - 0.6, dv = fabs(v) - 0.6;
  return du * du + dv * dv < 0.13;
}

static Inside *const shapes[SHAPES] = {inside_disc,  inside_ring, inside_square,  inside_frame, inside_triangle,
                                       inside_cross, inside_bar,  inside_stripes, inside_half,  inside_dots};

/* Draws of one image, one after another; a block of four at a time, since there are thousands. */
typedef struct Pen {
  uint64_t image, n;
  float block[4];
} Pen;

static double draw(Pen *pen, double low, double high) {
  if (pen->n % 4 == 0) random_fill_uniform(0, RANDOM_SYNTHETIC, pen->image, pen->n, pen->block, 4);
  return low + (high - low) * (double)pen->block[pen->n++ % 4];
}

typedef struct Figure {
  Inside *inside;
  double x, y, along, across; /* centre in pixels; the unit vector (along, across) / radius turns pixels into (u, v) */
  double colour[MOST_CHANNELS];
} Figure;

static Figure draw_figure(Pen *pen, const ProgramData *data, int32_t class) {
  double side = data->height < data->width ? data->height : data->width;
  Figure figure = {.inside = shapes[class]};
  double radius = side * draw(pen, 0.2, 0.34), reach = 0.5 * side - radius;
  figure.x = 0.5 * data->width + draw(pen, -reach, reach);
  figure.y = 0.5 * data->height + draw(pen, -reach, reach);
  double a, b, square;
  do { /* a direction: a point of the disc, without its middle */
    a = draw(pen, -1, 1);
    b = draw(pen, -1, 1);
    square = a * a + b * b;
  } while (square > 1 || square < 0.01);
  figure.along = a / (sqrt(square) * radius);
  figure.across = b / (sqrt(square) * radius);
  for (int32_t c = 0; c < data->channels; c++) figure.colour[c] = draw(pen, 130, 255);
  return figure;
}

/* The share of pixel (x, y) that the figure covers, from four points of it. */
static double coverage(const Figure *figure, int32_t x, int32_t y) {
  int count = 0;
  for (int i = 0; i < 4; i++) {
    double dx = x + (i % 2 ? 0.75 : 0.25) - figure->x, dy = y + (i / 2 ? 0.75 : 0.25) - figure->y;
    count += figure->inside(figure->along * dx + figure->across * dy, figure->along * dy - figure->across * dx);
  }
  return count / 4.0;
}

/* A cloud: random values on a coarse grid, joined linearly. Position in cells of the grid. */
static double cloud_at(double cloud[GRID][GRID], double x, double y) {
  int column = (int)x, row = (int)y;
  double fx = x - column, fy = y - row;
  double top = cloud[row][column] + fx * (cloud[row][column + 1] - cloud[row][column]);
  double bottom = cloud[row + 1][column] + fx * (cloud[row + 1][column + 1] - cloud[row + 1][column]);
  return top + fy * (bottom - top);
}

static void draw_image(const ProgramData *data, uint64_t image, uint8_t *pixels) {
  Pen pen = {.image = image};
  Figure figure = draw_figure(&pen, data, (int32_t)(image % (uint64_t)data->classes));
  int32_t height = data->height, width = data->width;
  double *covered = malloc((size_t)height * (size_t)width * sizeof *covered);
  if (!covered) die("no memory for one image");
  for (int32_t y = 0; y < height; y++)
    for (int32_t x = 0; x < width; x++) covered[y * width + x] = coverage(&figure, x, y);
  for (int32_t c = 0; c < data->channels; c++) {
    double cloud[GRID][GRID];
    for (int i = 0; i < GRID * GRID; i++) cloud[i / GRID][i % GRID] = draw(&pen, 0, 150);
    for (int32_t y = 0; y < height; y++)
      for (int32_t x = 0; x < width; x++) {
        double behind = cloud_at(cloud, (x + 0.5) * (GRID - 1) / width, (y + 0.5) * (GRID - 1) / height);
        double value = behind + covered[y * width + x] * (figure.colour[c] - behind) + draw(&pen, -25, 25);
        *pixels++ = (uint8_t)larger(0, smaller(255, value));
      }
  }
  free(covered);
}

Dataset *synthetic_load(const ProgramData *data, int64_t *train, Err *err) {
  if (data->classes > SHAPES) {
    err_set(err, "data %s: synthetic images have at most %d classes, not %d; correct the model", data->name, SHAPES,
            data->classes);
    return NULL;
  }
  Dataset *dataset = dataset_alloc(data, data->train_images, data->test_images, err);
  if (!dataset) return NULL;
  for (int64_t i = 0; i < dataset->count; i++) {
    dataset->labels[i] = (uint8_t)(i % data->classes);
    draw_image(data, (uint64_t)i, dataset->pixels + i * dataset->image_bytes);
  }
  *train = data->train_images;
  return dataset;
}
