/* Random numbers against tables: Philox against the vectors that its authors published (Random123's kat_vectors), the rules
 * against values computed once by another implementation of docs/random.md, in Python with 40 digits. A changed bit here changes
 * every run. */
#include "runtime/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void philox_gives_the_published_vectors(void **state) {
  (void)state;
  static const struct {
    uint32_t counter[4], key[2], out[4];
  } vectors[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    uint32_t out[4];
    random_philox(vectors[i].counter, vectors[i].key, out);
    assert_memory_equal(out, vectors[i].out, sizeof out);
  }
}

typedef struct Row {
  uint64_t seed;
  RandomStream stream;
  uint64_t index, n;
  uint32_t word;
  float uniform;
  double uniform_double;
  float normal;
  uint32_t below_10, below_large; /* of bounds 10 and 0xc0000001, where a quarter of the words is refused */
} Row;

static const Row rows[] = {
    {0, RANDOM_TEST, 0, 0, 0x0c08671a, 0x1.810ce0p-5f, 0x1.1f66c3541810cp-1, -0x1.acb4b0p+0f, 0, 151407955},
    {0, RANDOM_TEST, 0, 1, 0x8fb361aa, 0x1.1f66c2p-1f, 0x1.c6c3c35d57da6p-1, 0x1.3c18e8p-3f, 8, 2731966247},
    {1, RANDOM_TEST, 0, 2, 0xb00104dd, 0x1.600208p-1f, 0x1.2005c6b12f1c8p-2, 0x1.f48d52p-2f, 1, 1644638539},
    {0x0123456789abcdef, RANDOM_TEST, 0xfedcba9876543210, 3, 0x917551d4, 0x1.22eaa2p-1f, 0x1.249494642b484p-3, 0x1.5fd064p-3f, 3,
     2961195525},
    {UINT64_MAX, RANDOM_TEST, UINT64_MAX, 1000003, 0xd8595196, 0x1.b0b2a2p-1f, 0x1.54a820cf6cc41p-1, 0x1.0404a6p+0f, 8,
     2820060063},
    {42, RANDOM_TEST, 7, 1099511627776, 0xe3bd2d6e, 0x1.c77a5ap-1f, 0x1.a4d0dbe7d8b86p-2, 0x1.397462p+0f, 0, 886554329},
    {42, RANDOM_ORDER, 7, 5, 0x5622c16f, 0x1.588b04p-2f, 0x1.63545af96d4cfp-1, -0x1.b040dcp-2f, 2, 777626432},
    {42, RANDOM_TEST, 123456789, 77, 0x69f94dea, 0x1.a7e534p-2f, 0x1.61d30cc4e3794p-3, -0x1.bd2c0ap-3f, 9, 3002255731},
};

static void every_rule_gives_its_table(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const Row *r = &rows[i];
    assert_int_equal(random_word(r->seed, r->stream, r->index, r->n), r->word);
    assert_true(random_uniform(r->seed, r->stream, r->index, r->n) == r->uniform);
    assert_true(random_uniform_double(r->seed, r->stream, r->index, r->n) == r->uniform_double);
    assert_true(random_normal(r->seed, r->stream, r->index, r->n) == r->normal);
    assert_int_equal(random_below(r->seed, r->stream, r->index, r->n, 10), r->below_10);
    assert_int_equal(random_below(r->seed, r->stream, r->index, r->n, 0xc0000001), r->below_large);
  }
}

/* Draws whose first four words are all refused, so that a second block is needed. */
static void a_second_attempt_gives_its_table(void **state) {
  (void)state;
  assert_int_equal(random_below(5, RANDOM_TEST, 0, 14, 0x80000001), 1566288396);
  assert_int_equal(random_below(5, RANDOM_TEST, 0, 83, 0x80000001), 311865656);
  assert_int_equal(random_below(5, RANDOM_TEST, 0, 84, 0x80000001), 1619259752);
  assert_int_equal(random_below(5, RANDOM_TEST, 0, 91, 0x80000001), 1072713407);
}

static void permutations_give_their_tables(void **state) {
  (void)state;
  static const uint32_t third[16] = {6, 1, 5, 0, 4, 15, 10, 14, 12, 3, 11, 7, 2, 9, 13, 8};
  static const uint32_t fourth[16] = {2, 6, 0, 9, 13, 1, 8, 14, 11, 3, 4, 7, 12, 10, 15, 5};
  uint32_t order[16];
  random_permutation(7, RANDOM_ORDER, 3, order, 16);
  assert_memory_equal(order, third, sizeof order);
  random_permutation(7, RANDOM_ORDER, 4, order, 16);
  assert_memory_equal(order, fourth, sizeof order);
  random_permutation(7, RANDOM_ORDER, 4, order, 0);
  random_permutation(7, RANDOM_ORDER, 4, order, 1);
  assert_int_equal(order[0], 0);
}

/* Each of the 24 orders of four things about equally often: chi square with 23 degrees of freedom passes 60 once in 25,000 times.
 */
static void permutations_are_uniform(void **state) {
  (void)state;
  enum { TRIALS = 24000 };
  int counts[256] = {0};
  for (uint64_t i = 0; i < TRIALS; i++) {
    uint32_t order[4];
    random_permutation(1, RANDOM_TEST, i, order, 4);
    counts[order[0] + 4 * order[1] + 16 * order[2] + 64 * order[3]]++;
  }
  int seen = 0;
  double chi = 0, expected = (double)TRIALS / 24;
  for (int i = 0; i < 256; i++) {
    seen += counts[i] > 0;
    if (counts[i]) chi += pow(counts[i] - expected, 2) / expected;
  }
  assert_int_equal(seen, 24);
  assert_true(chi < 60);
}

/* A rule that took a remainder, or a word times the bound without refusing, would give the lower third twice as often. */
static void bounded_integers_have_no_bias(void **state) {
  (void)state;
  enum { TRIALS = 60000 };
  const uint32_t bound = 0xc0000000;
  int thirds[3] = {0};
  for (uint64_t n = 0; n < TRIALS; n++) {
    uint32_t value = random_below(2, RANDOM_TEST, 0, n, bound);
    assert_true(value < bound);
    thirds[value / 0x40000000]++;
  }
  for (int i = 0; i < 3; i++) assert_true(abs(thirds[i] - TRIALS / 3) < 600); /* five deviations */
  assert_int_equal(random_below(2, RANDOM_TEST, 0, 5, 1), 0);
}

static void filling_is_drawing_one_by_one(void **state) {
  (void)state;
  float uniform[23], normal[23];
  for (uint64_t first = 0; first < 6; first++)
    for (size_t count = 0; count <= 17; count++) {
      uniform[count] = normal[count] = -100;
      random_fill_uniform(9, RANDOM_TEST, 1, first, uniform, count);
      random_fill_normal(9, RANDOM_TEST, 1, first, normal, count);
      for (size_t i = 0; i < count; i++) {
        assert_true(uniform[i] == random_uniform(9, RANDOM_TEST, 1, first + i));
        assert_true(normal[i] == random_normal(9, RANDOM_TEST, 1, first + i));
      }
      assert_true(uniform[count] == -100 && normal[count] == -100);
    }
}

static void the_logarithm_is_correct_to_two_units(void **state) {
  (void)state;
  for (uint64_t n = 0; n < 50000; n++) {
    double x = random_uniform_double(3, RANDOM_TEST, 0, n);
    if (n % 2) x = ldexp(1 + x, (int)random_below(3, RANDOM_TEST, 1, n, 2000) - 1000);
    if (x == 0) continue;
    double want = log(x);
    assert_true(fabs(random_log(x) - want) <= 2.5 * (nextafter(fabs(want), INFINITY) - fabs(want)));
  }
  assert_true(random_log(1) == 0);
}

static void the_quantile_inverts_the_distribution(void **state) {
  (void)state;
  for (int i = 1; i < 20000; i++) {
    double p = i % 2 ? i / 20000.0 : ldexp(1 + i / 20000.0, -(i % 33)); /* the middle, and the tail as far as a word goes */
    if (p >= 1) continue;
    double z = random_normal_quantile(p), density = exp(-z * z / 2) * 0.3989422804014327;
    assert_true(fabs(0.5 * erfc(-z * 0.7071067811865476) - p) / density < 2e-12);
  }
  assert_true(random_normal_quantile(0.5) == 0);
  assert_true(random_normal_quantile(0.25) == -random_normal_quantile(0.75));
}

static void normals_have_the_moments_of_a_normal(void **state) {
  (void)state;
  enum { COUNT = 100000 };
  double sums[5] = {0};
  for (uint64_t n = 0; n < COUNT; n++) {
    double z = random_normal(4, RANDOM_ALPHA, n % 7, n);
    for (int power = 1; power <= 4; power++) sums[power] += pow(z, power) / (double)COUNT;
  }
  assert_true(fabs(sums[1]) < 0.015 && fabs(sums[2] - 1) < 0.02 && fabs(sums[3]) < 0.05 && fabs(sums[4] - 3) < 0.15);
}

static void neighbours_share_nothing(void **state) {
  (void)state;
  uint32_t word = random_word(1, RANDOM_INIT, 2, 3);
  assert_int_not_equal(word, random_word(2, RANDOM_INIT, 2, 3));
  assert_int_not_equal(word, random_word(1ull | 1ull << 32, RANDOM_INIT, 2, 3));
  assert_int_not_equal(word, random_word(1, RANDOM_ALPHA, 2, 3));
  assert_int_not_equal(word, random_word(1, RANDOM_INIT, 2 | 1ull << 32, 3));
  assert_int_not_equal(word, random_word(1, RANDOM_INIT, 2, 3 | 1ull << 34));
  assert_true(random_name_index("") == 0xcbf29ce484222325ull);
  assert_true(random_name_index("foobar") == 0x85944171f73967e8ull); /* FNV-1a's published vector */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_gives_the_published_vectors),
      cmocka_unit_test(every_rule_gives_its_table),
      cmocka_unit_test(a_second_attempt_gives_its_table),
      cmocka_unit_test(permutations_give_their_tables),
      cmocka_unit_test(permutations_are_uniform),
      cmocka_unit_test(bounded_integers_have_no_bias),
      cmocka_unit_test(filling_is_drawing_one_by_one),
      cmocka_unit_test(the_logarithm_is_correct_to_two_units),
      cmocka_unit_test(the_quantile_inverts_the_distribution),
      cmocka_unit_test(normals_have_the_moments_of_a_normal),
      cmocka_unit_test(neighbours_share_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
