/* pagestream.h: the one header of the kernels.
 *
 * Two libraries implement this file, libpagestream_cpu.so and libpagestream_cuda.so. They export the same symbols;
 * which one is loaded is the whole choice of backend. native/library.ts reads the prototypes below and binds them,
 * so no signature is written twice. scripts/build.ts numbers the prototypes between `ops begin` and `ops end` in
 * order of appearance; that number is the op id of a command list.
 *
 * Rules. Every function returns int32: 0 is success, below 0 a PS_E_* code whose text ps_last_error() gives (thread
 * local). Arguments are i32, i64, u64, f32, pointers and C strings: no structs by value, no callbacks. Pointers are
 * addresses (u64); they are below 2^53, so a JavaScript number holds them exactly. Matrices are [rows, cols],
 * row-major. Ops only enqueue: they neither allocate nor synchronize nor read device memory on the host.
 *
 * CPU semantics. Ops run inline and are complete on return; a stream is a token and may be 0. The calling thread is
 * thread 0 of the pool.
 *
 * Numerics: the same bits whatever the batch, the chunking, the number of threads and the state of the cache.
 *   1. Linear: one accumulator per output, K ascending, no split of K over threads; every M shares that order.
 *   2. Attention: the KV sequence is cut in partitions of PS_ATTENTION_PARTITION tokens from position 0; each
 *      partition yields (m, l, o) from its blocks in ascending order; partitions are merged in ascending order.
 *   3. K and V are read back from the cache after rounding, also inside the chunk that wrote them.
 *   4. Sampling: u(seed, choice, position, token) from Philox4x32-10; the token is the argmax of p / -log u over the
 *      kept set, ties to the lowest id; the logarithm is ours (kernels/philox.h), the same in both libraries.
 * The instruction paths of the CPU give equal bits (Linux on x86-64 and arm64); a GPU's differ. The numerics id of
 * ps_device_info says which devices may continue each other's work. */
#ifndef PAGESTREAM_H
#define PAGESTREAM_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#define PS_API __attribute__((visibility("default")))
#define PS_ABI_VERSION 1
#define PS_ATTENTION_PARTITION 256

typedef uint64_t ps_ctx;    /* a device with its streams and threads */
typedef uint64_t ps_stream; /* order of execution; 0 is the default stream */
typedef uint64_t ps_ptr;    /* device address */
typedef uint64_t ps_weight; /* a matrix packed into the layout its kernels want */

enum { PS_OK = 0, PS_E_INVALID = -1, PS_E_UNSUPPORTED = -2, PS_E_OOM = -3, PS_E_NODEVICE = -4, PS_E_DRIVER = -5 };
enum { PS_F32 = 0, PS_F16 = 1, PS_BF16 = 2, PS_I32 = 3 };
enum { PS_ACT_SILU = 0, PS_ACT_GELU_TANH = 1, PS_ACT_GELU = 2 };

/* ---- library, device, memory --------------------------------------------------------------------------------- */

PS_API int32_t ps_abi_version(void);
/* Hex SHA-256 of this file as the library was built with it. Op ids follow from it: native/library.ts takes no other. */
PS_API const char* ps_header_hash(void);
PS_API const char* ps_last_error(void);
/* JSON: {"abi","isa","name","cores","numerics"}. `numerics`: equal on devices that give equal bits. */
PS_API int32_t ps_device_info(ps_ctx ctx, char* out, int32_t capacity);
/* options: JSON {"threads":0 = all cores,"isa":"auto"|"plain"|"avx2"|"avx512","debug":false,"deterministic":false}. With
 * debug every index is checked, and that every tensor lies inside an allocation. A GPU keeps rule 1 if deterministic. */
PS_API int32_t ps_ctx_create(int32_t device, const char* options, uint64_t* out_ctx);
PS_API int32_t ps_ctx_destroy(ps_ctx ctx);
PS_API int32_t ps_mem_info(ps_ctx ctx, uint64_t* out_free, uint64_t* out_total);
/* 64-byte aligned, zeroed; huge pages where the system gives them. */
PS_API int32_t ps_malloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr);
PS_API int32_t ps_free(ps_ctx ctx, ps_ptr p);
/* Host memory that the device can copy from without staging. On the CPU the same as ps_malloc. */
PS_API int32_t ps_host_alloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr);
PS_API int32_t ps_host_free(ps_ctx ctx, ps_ptr p);
PS_API int32_t ps_memcpy_h2d(ps_ctx ctx, ps_stream s, ps_ptr dst, const void* src, uint64_t bytes);
PS_API int32_t ps_memcpy_d2h(ps_ctx ctx, ps_stream s, void* dst, ps_ptr src, uint64_t bytes);
PS_API int32_t ps_stream_create(ps_ctx ctx, uint64_t* out_stream);
PS_API int32_t ps_stream_destroy(ps_ctx ctx, ps_stream s);
PS_API int32_t ps_stream_sync(ps_ctx ctx, ps_stream s);

/* ---- weights ---------------------------------------------------------------------------------------------------
 * W is [n, k], as in a checkpoint: y = x W^T. It is packed once, row panel by row panel, so that no second copy exists. */
PS_API int32_t ps_weight_create(ps_ctx ctx, int32_t n, int32_t k, int32_t dtype, uint64_t* out_weight);
/* Rows [row, row + rows) from host memory, row-major [rows, k], of src_dtype (rounded to the weight's dtype). */
PS_API int32_t ps_weight_load(ps_ctx ctx, ps_weight w, int32_t row, int32_t rows, const void* src, int32_t src_dtype);
PS_API int32_t ps_weight_bytes(ps_ctx ctx, ps_weight w, uint64_t* out_bytes);
PS_API int32_t ps_weight_destroy(ps_ctx ctx, ps_weight w);

/* Runs a command list: records of {u32 op, u32 words, u64 args[words]}, each the arguments of one op below without
 * ctx and stream; floats are bit-cast into the low 32 bits, integers sign-extended. Stops at the first op that fails. */
PS_API int32_t ps_exec(ps_ctx ctx, ps_stream s, const void* records, uint64_t bytes);

/* ---- ops begin -------------------------------------------------------------------------------------------------
 * t: tokens of the step (all sequences laid end to end), b: sequences, d: hidden size, hd: head size,
 * hq / hkv: query / key-value heads. `dtype` is that of the activations (PS_F32; a GPU takes PS_BF16 too). */

/* out[i] = W[ids[i]]                               ids: i32 [t]  out: [t, k of W] */
PS_API int32_t ps_embedding(ps_ctx ctx, ps_stream s, ps_ptr out, ps_weight w, ps_ptr ids, int32_t t, int32_t dtype);
/* residual += x (if residual != 0; x is then left alone); out = residual / rms(residual) * w
 * without residual: out = x / rms(x) * w, out may be x.  x, residual, out: [t, d]  w: f32 [d] */
PS_API int32_t ps_rms_norm(ps_ctx ctx, ps_stream s, ps_ptr out, ps_ptr x, ps_ptr residual, ps_ptr w, int32_t t, int32_t d, float eps, int32_t dtype);
/* y = x W^T + bias                                 x: [t, k] rows ldx apart, y: [t, n] rows ldy apart, bias: f32 [n] or 0
 * ldx, ldy in elements. With a bf16 weight x is rounded to bf16 first; products are summed in fp32. */
PS_API int32_t ps_linear(ps_ctx ctx, ps_stream s, ps_ptr y, ps_ptr x, ps_weight w, ps_ptr bias, int32_t t, int64_t ldx, int64_t ldy, int32_t dtype);
/* Rotary embedding (arXiv 2104.09864) in place on the q and k heads of qkv rows [t, (hq + 2 hkv) hd], first `rot`
 * dimensions of each head. cos_sin: f32 [positions, rot] = rot/2 cosines, rot/2 sines. positions: i32 [t]
 * interleaved: pairs are (2i, 2i+1); otherwise (i, i + rot/2). */
PS_API int32_t ps_rope(ps_ctx ctx, ps_stream s, ps_ptr qkv, ps_ptr positions, ps_ptr cos_sin, int32_t t, int32_t hq, int32_t hkv, int32_t hd, int32_t rot, int32_t interleaved, int32_t dtype);
/* Writes k and v of each row to slot = block * block_size + offset. slots: i32 [t]
 * Caches of kv_dtype: k [blocks, hkv, hd, block_size] (transposed: SIMD lanes are tokens), v [blocks, hkv, block_size, hd].
 * Only the ops here know that (on a GPU k lies as v does); a block of either is hkv hd block_size elements. */
PS_API int32_t ps_kv_write(ps_ctx ctx, ps_stream s, ps_ptr k_cache, ps_ptr v_cache, ps_ptr qkv, ps_ptr slots, int32_t t, int32_t hq, int32_t hkv, int32_t hd, int32_t block_size, int32_t dtype, int32_t kv_dtype);
/* Paged causal attention (arXiv 2309.06180); decode is the case of one query row. Sequence i has query rows
 * query_start[i] .. query_start[i+1], the last of its kv_length[i] positions.
 * out: [t, hq hd]  qkv: as in ps_rope  query_start: i32 [b+1]  kv_length: i32 [b]  block_table: i32 [b, table_stride]
 * window: attend only to the last `window` positions (0: all). softcap: c tanh(x / c) on scores (0: none). */
PS_API int32_t ps_attention(ps_ctx ctx, ps_stream s, ps_ptr out, ps_ptr qkv, ps_ptr k_cache, ps_ptr v_cache, ps_ptr query_start, ps_ptr kv_length, ps_ptr block_table, int32_t table_stride, int32_t b, int32_t hq, int32_t hkv, int32_t hd, int32_t block_size, float scale, float softcap, int32_t window, int32_t dtype, int32_t kv_dtype);
/* out = act(gate) * up                             gate_up: [t, 2 d] = gate, up   out: [t, d] */
PS_API int32_t ps_gated_activation(ps_ctx ctx, ps_stream s, ps_ptr out, ps_ptr gate_up, int32_t t, int32_t d, int32_t activation, int32_t dtype);
/* x += y                                           both: [n] */
PS_API int32_t ps_add(ps_ctx ctx, ps_stream s, ps_ptr x, ps_ptr y, int64_t n, int32_t dtype);
/* out[i] = x[rows[i]]                              rows: i32 [n]  out: [n, d] */
PS_API int32_t ps_gather_rows(ps_ctx ctx, ps_stream s, ps_ptr out, ps_ptr x, ps_ptr rows, int32_t n, int32_t d, int32_t dtype);
/* Copies whole blocks inside the caches of one layer, pair after pair. pairs: i32 [n, 2] = from, to */
PS_API int32_t ps_kv_copy_blocks(ps_ctx ctx, ps_stream s, ps_ptr k_cache, ps_ptr v_cache, ps_ptr pairs, int32_t n, uint64_t block_bytes);
/* Raw log-probabilities, before any penalty: of the k most likely tokens, ties to the lowest id, and of tokens[i].
 * logits: f32 [b, vocab]  tokens: i32 [b]  top_ids: i32 [b, k]  top: f32 [b, k]  logprob: f32 [b]  rank: i32 [b] (1 = most likely) */
PS_API int32_t ps_logprobs(ps_ctx ctx, ps_stream s, ps_ptr top_ids, ps_ptr top, ps_ptr logprob, ps_ptr rank, ps_ptr logits, ps_ptr tokens, int32_t b, int32_t vocab, int32_t k);
/* One token per row: penalties, bias, temperature, top-k, top-p, min-p (in that order, as Hugging Face), then the
 * exponential race of rule 4. logits: f32 [b, vocab], left unchanged. out: i32 [b]
 * params: [b, 16] of 4 bytes:
 *   0 temperature f32 (0: argmax)  1 top_p f32  2 min_p f32  3 repetition f32  4 frequency f32  5 presence f32
 *   6 top_k i32 (0: off)  7 prompt tokens i32  8 seed low u32  9 seed high u32  10 choice u32  11 position u32
 *   12 history begin i32  13 history end i32  14 bias begin i32  15 bias end i32
 * history: i32, the sequence's tokens (prompt, then output) for the penalties; empty range: no penalties. Repetition
 * counts prompt and output, as Hugging Face; frequency and presence count output alone, as OpenAI.
 * bias_ids, bias_values: added to the logits; -inf forbids.
 * allowed: one bit per token, u32 [masks, (vocab + 31) / 32], row allowed_row[i] (-1: all); 0 if no row has one.
 * workspace: 8 bytes per vocabulary entry and row; afterwards it holds the kept set of each row as {i32 id, f32 weight},
 * weights proportional to p, ended by id -1 where it is shorter than the vocabulary. */
PS_API int32_t ps_sample(ps_ctx ctx, ps_stream s, ps_ptr out, ps_ptr logits, ps_ptr params, ps_ptr history, ps_ptr bias_ids, ps_ptr bias_values, ps_ptr allowed, ps_ptr allowed_row, int32_t b, int32_t vocab, ps_ptr workspace);

/* ---- ops end ------------------------------------------------------------------------------------------------- */

#ifdef __cplusplus
}
#endif
#endif
