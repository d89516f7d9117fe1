/* Counter-based random numbers: Philox4x32-10 and the rules that turn its words into numbers (docs/random.md).
 *
 * A draw has the same bits whoever compiled it: integers, and in floating point only + - * / and sqrt, which IEEE 754 rounds
 * exactly, in an order that the source fixes. So this file must be compiled without contraction of a product and a sum
 * (-ffp-contract=off, which the whole project has) and without -ffast-math. */
#include "runtime/random.h"

#include "runtime/base/err.h"

#include <math.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "random.c needs exactly rounded arithmetic: compile it without -ffast-math"
#endif

enum { ROUNDS = 10, MOST_ATTEMPTS = 256 };

typedef struct Block {
  uint32_t words[4];
} Block;

void random_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < ROUNDS; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* The last counter word: stream in bits 0..7, bits 32..47 of the block's number in 8..23, the attempt in 24..31. */
static Block block_at(uint64_t seed, RandomStream stream, uint64_t index, uint64_t block, uint32_t attempt) {
  uint32_t last = (uint32_t)stream | (uint32_t)(block >> 32 & 0xffff) << 8 | attempt << 24;
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)index, (uint32_t)(index >> 32), last};
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  Block out;
  random_philox(counter, key, out.words);
  return out;
}

uint32_t random_word(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n) {
  return block_at(seed, stream, index, n / 4, 0).words[n % 4];
}

static float word_to_uniform(uint32_t word) {
  return (float)(word >> 8) * 0x1p-24f;
}

float random_uniform(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n) {
  return word_to_uniform(random_word(seed, stream, index, n));
}

double random_uniform_double(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n) {
  Block block = block_at(seed, stream, index, n / 2, 0);
  const uint32_t *words = block.words + n % 2 * 2;
  uint64_t bits = words[0] | (uint64_t)words[1] << 32;
  return (double)(bits >> 11) * 0x1p-53;
}

/* log x = e log 2 + 2 artanh s with x = m 2^e, m in (sqrt(1/2), sqrt 2], s = (m - 1) / (m + 1), so s^2 < 0.0295: the first term
 * of artanh's series that is left out is below 2^-60 of the sum. */
double random_log(double x) {
  const double log2_high = 0x1.62e42fee00000p-1, log2_low = 0x1.a39ef35793c76p-33; /* high: e * high is exact */
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int64_t exponent = (int64_t)(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  memcpy(&m, &bits, sizeof m);
  if (m > 0x1.6a09e667f3bcdp+0) {
    m *= 0.5;
    exponent++;
  }
  double s = (m - 1) / (m + 1), square = s * s, sum = 0;
  for (int odd = 23; odd >= 3; odd -= 2) sum = (sum + 1.0 / odd) * square;
  double e = (double)exponent;
  return e * log2_high + (2 * s + (2 * s * sum + e * log2_low));
}

static double polynomial(const double coefficients[8], double x) {
  double sum = coefficients[7];
  for (int i = 6; i >= 0; i--) sum = sum * x + coefficients[i];
  return sum;
}

/* M. J. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988), PPND16. */
double random_normal_quantile(double p) {
  static const double middle_over[8] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3,
                                        1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                        3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static const double middle_under[8] = {1,
                                         4.2313330701600911252e+1,
                                         6.8718700749205790830e+2,
                                         5.3941960214247511077e+3,
                                         2.1213794301586595867e+4,
                                         3.9307895800092710610e+4,
                                         2.8729085735721942674e+4,
                                         5.2264952788528545610e+3};
  static const double near_over[8] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                                      3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                                      2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static const double near_under[8] = {1,
                                       2.05319162663775882187e0,
                                       1.67638483018380384940e0,
                                       6.89767334985100004550e-1,
                                       1.48103976427480074590e-1,
                                       1.51986665636164571966e-2,
                                       5.47593808499534494600e-4,
                                       1.05075007164441684324e-9};
  static const double far_over[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                     2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static const double far_under[8] = {1,
                                      5.99832206555887937690e-1,
                                      1.36929880922735805310e-1,
                                      1.48753612908506148525e-2,
                                      7.86869131145613259100e-4,
                                      1.84631831751005468180e-5,
                                      1.42151175831644588870e-7,
                                      2.04426310338993978564e-15};
  double q = p - 0.5;
  if (q >= -0.425 && q <= 0.425) {
    double r = 0.180625 - q * q;
    return q * polynomial(middle_over, r) / polynomial(middle_under, r);
  }
  double r = sqrt(-random_log(q < 0 ? p : 1 - p));
  double size = r <= 5 ? polynomial(near_over, r - 1.6) / polynomial(near_under, r - 1.6)
                       : polynomial(far_over, r - 5) / polynomial(far_under, r - 5);
  return q < 0 ? -size : size;
}

/* The middle of the word's interval, so that neither 0 nor 1 comes up and the distribution is symmetric. */
static float word_to_normal(uint32_t word) {
  return (float)random_normal_quantile(((double)word + 0.5) * 0x1p-32);
}

float random_normal(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n) {
  return word_to_normal(random_word(seed, stream, index, n));
}

/* D. Lemire's multiplication: of the 2^32 words, 2^32 % bound are refused, and each result is left with equally many. */
uint32_t random_below(uint64_t seed, RandomStream stream, uint64_t index, uint64_t n, uint32_t bound) {
  if (!bound) die("a random number below 0");
  uint32_t refused = (0u - bound) % bound;
  uint64_t product = 0;
  for (uint32_t attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
    Block block = block_at(seed, stream, index, n, attempt);
    for (int i = 0; i < 4; i++) {
      product = (uint64_t)block.words[i] * bound;
      if ((uint32_t)product >= refused) return (uint32_t)(product >> 32);
    }
  }
  return (uint32_t)(product >> 32); /* 1024 refusals in a row: less likely than 2^-1024 */
}

typedef float WordRule(uint32_t word);

static inline void fill(uint64_t seed, RandomStream stream, uint64_t index, uint64_t first, float *out, size_t count,
                        WordRule *rule) {
  for (size_t i = 0; i < count;) {
    uint64_t n = first + i;
    Block block = block_at(seed, stream, index, n / 4, 0);
    for (uint64_t w = n % 4; w < 4 && i < count; w++) out[i++] = rule(block.words[w]);
  }
}

void random_fill_uniform(uint64_t seed, RandomStream stream, uint64_t index, uint64_t first, float *out, size_t count) {
  fill(seed, stream, index, first, out, count, word_to_uniform);
}

void random_fill_normal(uint64_t seed, RandomStream stream, uint64_t index, uint64_t first, float *out, size_t count) {
  fill(seed, stream, index, first, out, count, word_to_normal);
}

void random_permutation(uint64_t seed, RandomStream stream, uint64_t index, uint32_t *order, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) order[i] = i;
  for (uint32_t i = count; i-- > 1;) {
    uint32_t other = random_below(seed, stream, index, i, i + 1), held = order[i];
    order[i] = order[other];
    order[other] = held;
  }
}

uint64_t random_name_index(const char *name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
  return hash;
}
