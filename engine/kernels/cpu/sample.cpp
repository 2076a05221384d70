// One token per row of logits: penalties, bias, temperature, top-k, top-p and min-p in the order of Hugging Face's
// logits processors, then an exponential race (rule 4 of pagestream.h). A row belongs to one thread and depends on
// nothing else.
//
// A NaN counts as the lowest finite logit, so that whatever a broken model gives, an allowed token comes out.
#include <algorithm>
#include <cfloat>
#include <functional>

#include "context.h"
#include "philox.h"
#include "simd.h"

namespace PS_ISA {

struct Params {
  float temperature, top_p, min_p, repetition, frequency, presence;
  int32_t top_k, prompt_tokens;
  uint32_t seed_low, seed_high, choice, position;
  int32_t history_begin, history_end, bias_begin, bias_end;
};
static_assert(sizeof(Params) == 64, "a row of 16 words");

/* A token that may still be drawn. `weight` holds its score until the scores are exponentiated. */
struct Candidate {
  int32_t id;
  float weight;
};

/* e^score is 0 in f32 below this: such a token is never drawn. */
constexpr float kLeastScore = -87.0f;

static bool heavier(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

/* The workspace of a row: scores in its second half; in the first the counts of penalties, later candidates, which
 * are compacted over the scores already read. */
struct Row {
  const Params& params;
  int vocab;
  float* scores;
  union {
    int32_t* counts;
    Candidate* candidates;
  };
};

static void copy_scores(const Row& row, const float* logits) {
  const Vec lowest = set1(-FLT_MAX), highest = set1(FLT_MAX);
  for (int i = 0; i < row.vocab; i += kLanes) {
    const int lanes = row.vocab - i;
    const Vec x = load(logits + i, lanes);
    // x < infinity holds for all but NaN and +infinity.
    const Vec number = where_less(x, set1(INFINITY), x, where_less(zero(), x, highest, lowest));
    store(row.scores + i, number, lanes);
  }
}

/* Repetition counts prompt and output (arXiv 1909.05858); presence and frequency, by OpenAI's formula, output only. */
static void penalize(const Row& row, const int32_t* history) {
  const Params& p = row.params;
  if (p.repetition == 1 && p.presence == 0 && p.frequency == 0) return;
  const int begin = p.history_begin, end = p.history_end, output = std::min(begin + p.prompt_tokens, end);
  constexpr int32_t kDone = -1;
  auto known = [&](int i) { return uint32_t(history[i]) < uint32_t(row.vocab); };
  for (int i = begin; i < end; i++)
    if (known(i)) row.counts[history[i]] = 0;
  for (int i = output; i < end; i++)
    if (known(i)) row.counts[history[i]]++;
  for (int i = begin; i < end; i++) {
    if (!known(i) || row.counts[history[i]] == kDone) continue;
    float& score = row.scores[history[i]];
    int32_t& count = row.counts[history[i]];
    score = score < 0 ? score * p.repetition : score / p.repetition;
    if (count > 0) score -= p.presence + p.frequency * float(count);
    count = kDone;
  }
}

static void add_bias(const Row& row, const int32_t* ids, const float* values) {
  for (int i = row.params.bias_begin; i < row.params.bias_end; i++)
    if (uint32_t(ids[i]) < uint32_t(row.vocab)) row.scores[ids[i]] += values[i];
}

static void forbid(const Row& row, const uint32_t* allowed) {
  for (int i = 0; i < row.vocab; i++)
    if (!(allowed[i / 32] >> i % 32 & 1)) row.scores[i] = -INFINITY;
}

static float highest_score(const Row& row) {
  Vec most = set1(-INFINITY);
  int i = 0;
  for (; i + kLanes <= row.vocab; i += kLanes) most = max(load(row.scores + i), most);
  float highest = max(most);
  for (; i < row.vocab; i++) highest = std::max(highest, row.scores[i]);
  return highest;
}

/* (score - highest) / temperature */
static void scale(const Row& row, float highest) {
  const Vec top = set1(highest), temperature = set1(row.params.temperature);
  for (int i = 0; i < row.vocab; i += kLanes) {
    const int lanes = row.vocab - i;
    store(row.scores + i, (load(row.scores + i, lanes) - top) / temperature, lanes);
  }
}

/* A bound from below of the k-th highest score: the k-th highest of the maxima of blocks. It leaves few candidates. */
static float bound_of_top_k(const Row& row, int k) {
  constexpr int kBlock = 4 * kLanes;
  const int blocks = row.vocab / kBlock;
  if (k <= 0 || k > blocks) return -INFINITY;
  float* maxima = reinterpret_cast<float*>(row.counts);
  for (int b = 0; b < blocks; b++) {
    const float* s = row.scores + b * kBlock;
    maxima[b] = max(max(max(load(s), load(s + kLanes)), max(load(s + 2 * kLanes), load(s + 3 * kLanes))));
  }
  std::nth_element(maxima, maxima + k - 1, maxima + blocks, std::greater<float>());
  return maxima[k - 1];
}

/* Tokens with at least this score, in ascending order of id. */
static int collect(const Row& row, float least) {
  int count = 0;
  for (int i = 0; i < row.vocab; i++) {
    const float score = row.scores[i];
    if (score >= least) row.candidates[count++] = {i, score};
  }
  return count;
}

static int keep_at_least(Candidate* candidates, int count, double least) {
  auto end = std::partition(candidates, candidates + count, [&](const Candidate& c) { return c.weight >= least; });
  return int(end - candidates);
}

/* Keeps what scores as high as the k-th, ties included. */
static int keep_top_k(Candidate* candidates, int count, int k) {
  if (k <= 0 || k >= count) return count;
  std::nth_element(candidates, candidates + k - 1, candidates + count, heavier);
  const float least = candidates[k - 1].weight;
  return k + keep_at_least(candidates + k, count - k, least);
}

/* Scores to weights e^score; returns their sum. */
static double exponentiate(Candidate* candidates, int count) {
  double total = 0;
  for (int begin = 0; begin < count; begin += kLanes) {
    const int lanes = std::min(kLanes, count - begin);
    float values[kLanes] = {};
    for (int i = 0; i < lanes; i++) values[i] = candidates[begin + i].weight;
    store(values, exp(load(values)));
    for (int i = 0; i < lanes; i++) total += candidates[begin + i].weight = values[i];
  }
  return total;
}

/* Keeps the heaviest ones, as long as those before weigh less than the share p of all. Sorts no more than needed. */
static int keep_top_p(Candidate* candidates, int count, float p, double total) {
  if (!(p < 1)) return count;
  // All tokens lighter than this weigh less than 1 - p together, so none of them is kept.
  const double tail = 0.999 * (1 - p) * total / count;
  count = keep_at_least(candidates, count, tail);
  double before = 0;
  int kept = 0;
  for (int sorted = 0, next = 64; sorted < count; next *= 8) {
    const int upto = std::min(count, next);
    if (upto < count) std::nth_element(candidates + sorted, candidates + upto, candidates + count, heavier);
    std::sort(candidates + sorted, candidates + upto, heavier);
    sorted = upto;
    for (; kept < sorted; kept++) {
      if (kept > 0 && before >= p * total) return kept;
      before += candidates[kept].weight;
    }
  }
  return kept;
}

/* The heaviest weighs 1. */
static int keep_min_p(Candidate* candidates, int count, float p) {
  if (!(p > 0)) return count;
  return keep_at_least(candidates, count, std::min(p, 1.0f));
}

/* argmax of weight / -log u, ties to the lowest id. -log u >= 1 - u, so most need no logarithm to be out. */
static int race(const Params& params, const Candidate* candidates, int count) {
  double best = -1;
  int winner = 0;
  uint32_t group = UINT32_MAX;
  Philox words{};
  for (int i = 0; i < count; i++) {
    const auto [id, weight] = candidates[i];
    if (uint32_t(id) / 4 != group) {
      group = uint32_t(id) / 4;
      words = philox_of_tokens(params.seed_low, params.seed_high, params.choice, params.position, uint32_t(id));
    }
    const double u = uniform(words.word[id % 4]);
    if (weight < best * (1 - u) * (1 - 1e-12)) continue;
    const double key = weight / -ps_log(u);
    if (key > best || (key == best && id < winner)) {
      best = key;
      winner = id;
    }
  }
  return winner;
}

/* Returns the token; leaves the kept set in the workspace. */
static int draw(const Row& row) {
  const float highest = highest_score(row);
  int count = 0, token = 0;
  if (highest == -INFINITY) {
    // Everything is forbidden: token 0, and an empty set.
  } else if (!(row.params.temperature > 0)) {
    token = int(std::find(row.scores, row.scores + row.vocab, highest) - row.scores);
    row.candidates[count++] = {token, 1};
  } else {
    scale(row, highest);
    const float bound = bound_of_top_k(row, row.params.top_k);
    count = keep_top_k(row.candidates, collect(row, std::max(bound, kLeastScore)), row.params.top_k);
    const double total = exponentiate(row.candidates, count);
    count = keep_top_p(row.candidates, count, row.params.top_p, total);
    count = keep_min_p(row.candidates, count, row.params.min_p);
    token = race(row.params, row.candidates, count);
  }
  if (count < row.vocab) row.candidates[count] = {-1, 0};
  return token;
}

static void check_rows(Context& ctx, const Params* params, int b, ps_ptr history, ps_ptr bias_ids, ps_ptr bias_values,
                       ps_ptr allowed, const int32_t* allowed_row, int vocab) {
  if (!ctx.debug) return;
  for (int i = 0; i < b; i++) {
    const Params& p = params[i];
    const bool ordered = 0 <= p.history_begin && p.history_begin <= p.history_end && 0 <= p.bias_begin &&
                         p.bias_begin <= p.bias_end && p.prompt_tokens >= 0;
    if (!ordered) throw Error(PS_E_INVALID, "params[%d]: a range of history or bias ends before it begins", i);
    if (p.history_end > 0)
      ctx.check_indices("history", ctx.tensor<int32_t>("history", history, p.history_end), p.history_end, vocab);
    if (p.bias_end > 0) {
      ctx.check_indices("bias_ids", ctx.tensor<int32_t>("bias_ids", bias_ids, p.bias_end), p.bias_end, vocab);
      ctx.tensor<float>("bias_values", bias_values, p.bias_end);
    }
    if (allowed && allowed_row[i] >= 0)
      ctx.tensor<uint32_t>("allowed", allowed, (allowed_row[i] + int64_t(1)) * ((vocab + 31) / 32));
  }
}

void sample(Context& ctx, ps_ptr out, ps_ptr logits, ps_ptr params, ps_ptr history, ps_ptr bias_ids, ps_ptr bias_values,
            ps_ptr allowed, ps_ptr allowed_row, int32_t b, int32_t vocab, ps_ptr workspace) {
  require(b >= 0 && vocab > 0, "b >= 0 and vocab > 0");
  int32_t* output = ctx.tensor<int32_t>("out", out, b);
  const float* input = ctx.tensor<float>("logits", logits, int64_t(b) * vocab);
  const Params* rows = ctx.tensor<Params>("params", params, b);
  const int32_t* mask_row = allowed ? ctx.tensor<int32_t>("allowed_row", allowed_row, b) : nullptr;
  float* space = ctx.tensor<float>("workspace", workspace, 2 * int64_t(b) * vocab);
  check_rows(ctx, rows, b, history, bias_ids, bias_values, allowed, mask_row, vocab);

  ctx.pool.parallel(b, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* own = space + 2 * i * vocab;
      const Row row{rows[i], vocab, own + vocab, {reinterpret_cast<int32_t*>(own)}};
      copy_scores(row, input + i * vocab);
      penalize(row, reinterpret_cast<const int32_t*>(history));
      add_bias(row, reinterpret_cast<const int32_t*>(bias_ids), reinterpret_cast<const float*>(bias_values));
      if (allowed && mask_row[i] >= 0)
        forbid(row, reinterpret_cast<const uint32_t*>(allowed) + int64_t(mask_row[i]) * ((vocab + 31) / 32));
      output[i] = draw(row);
    }
  });
}

}  // namespace PS_ISA
