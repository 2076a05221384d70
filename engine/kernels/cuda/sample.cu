// One token per row of logits: penalties, bias, temperature, top-k, top-p and min-p in the order of Hugging Face's
// logits processors, then an exponential race (rule 4 of pagestream.h). A block takes a row.
//
// Nothing is sorted. What top-k and top-p keep is everything above a threshold, whose bits are found eight at a time by
// counting (top-k) or weighing (top-p) the tokens of each of 256 bins. Weights are summed as whole numbers of 2^-40, so
// that no order matters. A NaN counts as the lowest finite logit, so that an allowed token comes out of a broken model.
#include <algorithm>
#include <cfloat>

#include "philox.h"
#include "reduce.h"

namespace PS_ISA {

constexpr int kMaxThreads = 512, kBins = 256;
constexpr float kOut = -1;  // the weight of a token that may not be drawn

struct Params {
  float temperature, top_p, min_p, repetition, frequency, presence;
  int32_t top_k, prompt_tokens;
  uint32_t seed_low, seed_high, choice, position;
  int32_t history_begin, history_end, bias_begin, bias_end;
};
static_assert(sizeof(Params) == 64, "a row of 16 words");

struct Candidate {
  int32_t id;
  float weight;
};

/* scores: second half of the row's workspace; then weights, kOut for what was dropped. The first half holds the counts
 * of penalties, at the end the kept set. */
struct Row {
  Params params;
  int vocab;
  float* scores;
  int32_t* counts;
  Candidate* candidates;
};

#define PS_EACH_TOKEN(i) for (int i = threadIdx.x; i < row.vocab; i += blockDim.x)

__device__ void copy_scores(const Row& row, const float* logits) {
  PS_EACH_TOKEN(i) {
    const float x = logits[i];
    row.scores[i] = x < INFINITY ? x : x > 0 ? FLT_MAX : -FLT_MAX;
  }
  __syncthreads();
}

/* Repetition counts prompt and output (arXiv 1909.05858); presence and frequency, by OpenAI's formula, output only. */
__device__ void penalize(const Row& row, const int32_t* history) {
  const Params& p = row.params;
  if (p.repetition == 1 && p.presence == 0 && p.frequency == 0) return;
  constexpr int32_t kDone = -1;
  const int begin = p.history_begin + int(threadIdx.x), output = min(p.history_begin + p.prompt_tokens, p.history_end);
  auto known = [&](int i) { return uint32_t(history[i]) < uint32_t(row.vocab); };
  for (int i = begin; i < p.history_end; i += blockDim.x)
    if (known(i)) row.counts[history[i]] = 0;
  __syncthreads();
  for (int i = output + int(threadIdx.x); i < p.history_end; i += blockDim.x)
    if (known(i)) atomicAdd(&row.counts[history[i]], 1);
  __syncthreads();
  for (int i = begin; i < p.history_end; i += blockDim.x) {
    if (!known(i)) continue;
    const int32_t count = atomicExch(&row.counts[history[i]], kDone);  // whoever comes first does it
    if (count == kDone) continue;
    float& score = row.scores[history[i]];
    score = score < 0 ? score * p.repetition : score / p.repetition;
    if (count > 0) score -= p.presence + p.frequency * float(count);
  }
  __syncthreads();
}

/* A token belongs to one thread, so that several biases of it are added in their order. */
__device__ void add_bias(const Row& row, const int32_t* ids, const float* values) {
  for (int i = row.params.bias_begin; i < row.params.bias_end; i++)
    if (uint32_t(ids[i]) < uint32_t(row.vocab) && ids[i] % blockDim.x == threadIdx.x) row.scores[ids[i]] += values[i];
  __syncthreads();
}

__device__ void forbid(const Row& row, const uint32_t* allowed) {
  PS_EACH_TOKEN(i)
    if (!(allowed[i / 32] >> i % 32 & 1)) row.scores[i] = -INFINITY;
  __syncthreads();
}

/* Floats in an order of unsigned integers. */
__device__ inline uint32_t ascending(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* Descends from the heaviest token: the greatest threshold such that amount_of(tokens at or above it) reaches `wanted`;
 * `above` becomes the amount strictly above it. Tokens that are out have amount 0. */
template <class Amount>
__device__ uint32_t find_threshold(const Row& row, uint64_t wanted, uint64_t& above, Amount amount_of) {
  __shared__ unsigned long long bins[kBins];
  uint32_t prefix = 0;
  above = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) bins[i] = 0;
    __syncthreads();
    PS_EACH_TOKEN(i) {
      const uint32_t key = ascending(row.scores[i]);
      const unsigned long long amount = amount_of(row.scores[i]);
      if (amount > 0 && (shift == 24 || key >> (shift + 8) == prefix)) atomicAdd(&bins[key >> shift & 255], amount);
    }
    __syncthreads();
    int bin = kBins - 1;
    while (bin > 0 && above + bins[bin] < wanted) above += bins[bin--];
    prefix = prefix << 8 | uint32_t(bin);
    __syncthreads();
  }
  return prefix;
}

/* Scores relative to the highest, by temperature; what does not score as high as the k-th is dropped. */
__device__ void keep_top_k(const Row& row, float highest) {
  const float temperature = row.params.temperature;
  int count = 0;
  PS_EACH_TOKEN(i) {
    row.scores[i] = (row.scores[i] - highest) / temperature;
    count += row.scores[i] > -INFINITY;
  }
  count = block_sum(count);
  uint32_t threshold = 0;
  if (row.params.top_k > 0 && row.params.top_k < count) {
    uint64_t above;
    threshold = find_threshold(row, row.params.top_k, above, [](float score) { return score > -INFINITY ? 1ull : 0ull; });
  }
  PS_EACH_TOKEN(i) {
    const float score = row.scores[i];
    row.scores[i] = score > -INFINITY && ascending(score) >= threshold ? expf(score) : kOut;
  }
  __syncthreads();
}

/* The heaviest weighs 1. */
__device__ inline unsigned long long fixed(float weight) {
  return weight > 0 ? (unsigned long long)(weight * 0x1p40f) : 0ull;
}

/* Keeps the heaviest ones, as long as those before weigh less than the share p of all; of equal ones the lowest ids. */
__device__ void keep_top_p(const Row& row) {
  const double p = row.params.top_p;
  if (!(p < 1)) return;
  unsigned long long total = 0;
  PS_EACH_TOKEN(i) total += fixed(row.scores[i]);
  total = block_sum(total);
  const double share = p * double(total);
  uint64_t above;
  const uint32_t threshold = find_threshold(row, share > 1 ? uint64_t(ceil(share)) : 1, above, fixed);
  // The last ones kept are equal: as many of them as begin below the share.
  const uint32_t bits = threshold >> 31 ? threshold & 0x7fffffffu : ~threshold;
  const double weight = double(fixed(__uint_as_float(bits)));
  const double ties = ceil((share - double(above)) / weight);
  int64_t before = 0, of_all;
  for (int begin = 0; begin < row.vocab; begin += blockDim.x) {
    const int i = begin + threadIdx.x;
    const uint32_t key = i < row.vocab ? ascending(row.scores[i]) : 0;
    const int64_t index = before + block_scan(key == threshold, of_all) - 1;
    if (i < row.vocab && (key < threshold || (key == threshold && index > 0 && index >= ties))) row.scores[i] = kOut;
    before += of_all;
  }
  __syncthreads();
}

__device__ void keep_min_p(const Row& row) {
  if (!(row.params.min_p > 0)) return;
  const float least = fminf(row.params.min_p, 1.0f);
  PS_EACH_TOKEN(i)
    if (row.scores[i] < least) row.scores[i] = kOut;
  __syncthreads();
}

/* argmax of weight / -log u, ties to the lowest id; the random words of four neighbouring tokens come together. */
__device__ int race(const Row& row) {
  const Params& p = row.params;
  double best = -1;
  int winner = 0;
  for (int group = threadIdx.x; group * 4 < row.vocab; group += blockDim.x) {
    Philox words{};
    bool drawn = false;
    for (int id = 4 * group; id < min(4 * group + 4, row.vocab); id++) {
      const float weight = row.scores[id];
      if (weight < 0) continue;
      if (!drawn) words = philox_of_tokens(p.seed_low, p.seed_high, p.choice, p.position, uint32_t(id));
      drawn = true;
      const double u = uniform(words.word[id % 4]);
      if (weight < best * (1 - u) * (1 - 1e-12)) continue;  // -log u >= 1 - u: most need no logarithm to be out
      const double key = weight / -ps_log(u);
      if (key > best) {
        best = key;
        winner = id;
      }
    }
  }
  const double most = block_max(best);
  return -block_max(best == most ? -winner : INT32_MIN);
}

/* The kept set in ascending order of id, over scores that have been read. */
__device__ void compact(const Row& row) {
  int64_t before = 0, of_all;
  for (int begin = 0; begin < row.vocab; begin += blockDim.x) {
    const int i = begin + threadIdx.x;
    const float weight = i < row.vocab ? row.scores[i] : kOut;
    const int64_t index = before + block_scan(weight >= 0, of_all) - 1;
    if (weight >= 0) row.candidates[index] = {i, weight};
    before += of_all;
    __syncthreads();
  }
  if (threadIdx.x == 0 && before < row.vocab) row.candidates[before] = {-1, 0};
}

__device__ int first_of(const Row& row, float score) {
  int first = INT32_MAX;
  PS_EACH_TOKEN(i)
    if (row.scores[i] == score && i < first) first = i;
  return -block_max(-first);
}

__global__ void draw(int32_t* out, const float* logits, const Params* params, const int32_t* history, const int32_t* bias_ids,
                     const float* bias_values, const uint32_t* allowed, const int32_t* allowed_row, int vocab, float* workspace) {
  float* own = workspace + 2 * int64_t(blockIdx.x) * vocab;
  const Row row{params[blockIdx.x], vocab, own + vocab, reinterpret_cast<int32_t*>(own), reinterpret_cast<Candidate*>(own)};
  copy_scores(row, logits + int64_t(blockIdx.x) * vocab);
  penalize(row, history);
  add_bias(row, bias_ids, bias_values);
  if (allowed && allowed_row[blockIdx.x] >= 0) forbid(row, allowed + int64_t(allowed_row[blockIdx.x]) * ((vocab + 31) / 32));
  float highest = -INFINITY;
  PS_EACH_TOKEN(i) highest = fmaxf(highest, row.scores[i]);
  highest = block_max(highest);

  int token = 0;
  if (highest == -INFINITY) {  // everything is forbidden: token 0, and an empty set
    if (threadIdx.x == 0) row.candidates[0] = {-1, 0};
  } else if (!(row.params.temperature > 0)) {
    token = first_of(row, highest);
    if (threadIdx.x == 0) {
      row.candidates[0] = {token, 1};
      if (vocab > 1) row.candidates[1] = {-1, 0};
    }
  } else {
    keep_top_k(row, highest);
    keep_top_p(row);
    keep_min_p(row);
    token = race(row);
    compact(row);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = token;
}

static void check_rows(Context& ctx, const Params* device_params, int b, ps_ptr history, ps_ptr bias_ids, ps_ptr bias_values,
                       ps_ptr allowed, const int32_t* allowed_row, int vocab) {
  const std::vector<Params> params = ctx.fetch(device_params, b);
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
  }
  if (!allowed) return;
  for (int32_t row : ctx.fetch(allowed_row, b))
    if (row >= 0) ctx.tensor<uint32_t>("allowed", allowed, (row + int64_t(1)) * ((vocab + 31) / 32));
}

void sample(Context& ctx, ps_ptr out, ps_ptr logits, ps_ptr params, ps_ptr history, ps_ptr bias_ids, ps_ptr bias_values,
            ps_ptr allowed, ps_ptr allowed_row, int32_t b, int32_t vocab, ps_ptr workspace) {
  require(b >= 0 && vocab > 0, "b >= 0 and vocab > 0");
  const Params* rows = ctx.tensor<Params>("params", params, b);
  const int32_t* mask_row = allowed ? ctx.tensor<int32_t>("allowed_row", allowed_row, b) : nullptr;
  if (ctx.debug) check_rows(ctx, rows, b, history, bias_ids, bias_values, allowed, mask_row, vocab);
  const int threads = int(std::min<int64_t>(kMaxThreads, ceil_div(vocab, 32) * 32));
  launch(ctx, draw, b, threads, 0, ctx.tensor<int32_t>("out", out, b), ctx.tensor<float>("logits", logits, int64_t(b) * vocab),
         rows, reinterpret_cast<const int32_t*>(history), reinterpret_cast<const int32_t*>(bias_ids),
         reinterpret_cast<const float*>(bias_values), reinterpret_cast<const uint32_t*>(allowed), mask_row, vocab,
         ctx.tensor<float>("workspace", workspace, 2 * int64_t(b) * vocab));
}

}  // namespace PS_ISA
