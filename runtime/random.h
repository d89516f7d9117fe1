/* random: every draw is a pure function of (seed, stream, index, n), by Philox4x32-10.
 *
 * `stream` says what the draw is for, `index` which of that kind (a step, an epoch, an image), `n` which draw of it. Nothing has
 * state, so draws depend neither on threads nor on what was drawn before. Rules and tables stand in docs/random.md; the bits are
 * the same with every compiler, since only exactly rounded operations are used (no libm but sqrt).
 *
 * Word n is word n % 4 of block n / 4. `random_uniform` and `random_normal` use word n, `random_uniform_double` words 2n and
 * 2n + 1, `random_below` block n, which is the words 4n..4n+3: within one (stream, index), keep to one of the three. */
#ifndef ADWP_RUNTIME_RANDOM_H
#define ADWP_RUNTIME_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* The numbers are part of every run's bits: add at the end, change none. */
typedef enum RandomStream {
  RANDOM_INIT = 1,        /* initial weights; index: random_name_index of the parameter's name, n: element in canonical order */
  RANDOM_ALPHA = 2,       /* logits of the training stage; index: step of the run */
  RANDOM_ALPHA_START = 3, /* logits with which a search begins */
  RANDOM_ORDER = 4,       /* order of images; index: epoch */
  RANDOM_AUGMENT = 5,     /* index: epoch * 2^32 + image */
  RANDOM_SYNTHETIC = 6,   /* index: image */
  RANDOM_SAMPLE = 7,      /* random architectures; index: which one */
  RANDOM_DROP_PATH = 8,   /* index: step of the run */
  RANDOM_TEST = 9,        /* whatever a test wants */
} RandomStream;

/* Philox4x32-10 itself. */
void random_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

uint32_t random_word(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n);
float random_uniform(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n);         /* [0, 1), multiples of 2^-24 */
double random_uniform_double(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n); /* [0, 1), multiples of 2^-53 */
float random_normal(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n);          /* N(0, 1), |z| < 6.34 */
/* 0 <= result < bound, without bias; a bound of 0 is a bug. */
uint32_t random_below(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n, uint32_t bound);

/* out[i] = the draw at n = first + i; faster than one by one. */
void random_fill_uniform(uint64_t seed, RandomStream stream, uint64_t index, uint64_t first, float *out, size_t count);
void random_fill_normal(uint64_t seed, RandomStream stream, uint64_t index, uint64_t first, float *out, size_t count);

/* Fills order with a permutation of 0..count-1; uses random_below's n = 1..count-1. */
void random_permutation(uint64_t seed, RandomStream stream, uint64_t index, uint32_t *order, uint32_t count);

/* An index made from a name (FNV-1a, 64 bits), so that a draw follows the name and not the place. */
uint64_t random_name_index(const char *name);

/* The normal's rule alone: the p-quantile of N(0, 1) for 0 < p < 1 with an absolute error below 1e-12; and the natural logarithm
 * that it uses, for finite normal x > 0, correct to 2 units in the last place. */
double random_normal_quantile(double p);
double random_log(double x);

#endif
