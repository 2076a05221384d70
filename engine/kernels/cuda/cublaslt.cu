// Our own declarations of the few functions of cuBLASLt that a product of bf16 matrices takes (version 12 and 13, whose
// numbers and structs are the same). The library is half a gigabyte, so it is never carried along: it is looked for at
// $PS_CUBLASLT, by its name, and where the CUDA toolkit puts it.
#include "cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <tuple>

namespace {

using Opaque = void*;
struct Algorithm {
  uint64_t data[8];
};
struct Choice {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};
constexpr int kF32 = 0, kBf16 = 14, kCompute32F = 68, kTransposeA = 3, kMaxWorkspace = 1;
constexpr int32_t kTransposed = 1;
constexpr size_t kWorkspace = 32 << 20;

struct Functions {
  int (*create)(Opaque*);
  int (*destroy)(Opaque);
  int (*desc_create)(Opaque*, int compute, int scale);
  int (*desc_set)(Opaque, int attribute, const void*, size_t);
  int (*desc_destroy)(Opaque);
  int (*layout_create)(Opaque*, int type, uint64_t rows, uint64_t columns, int64_t ld);
  int (*layout_destroy)(Opaque);
  int (*preference_create)(Opaque*);
  int (*preference_set)(Opaque, int attribute, const void*, size_t);
  int (*preference_destroy)(Opaque);
  int (*heuristic)(Opaque, Opaque desc, Opaque a, Opaque b, Opaque c, Opaque d, Opaque preference, int wanted, Choice*, int*);
  int (*matmul)(Opaque, Opaque desc, const void* alpha, const void* a, Opaque, const void* b, Opaque, const void* beta,
                const void* c, Opaque, void* d, Opaque, const Algorithm*, void* workspace, size_t, cudaStream_t);
};

/* What a product of one shape needs; kept, because finding an algorithm takes longer than running it. */
struct Product {
  const Functions& f;
  Opaque desc = nullptr, w = nullptr, x = nullptr, y = nullptr;
  bool found = false;
  Choice choice{};

  explicit Product(const Functions& f) : f(f) {}
  ~Product() {
    if (desc) f.desc_destroy(desc);
    for (Opaque layout : {w, x, y})
      if (layout) f.layout_destroy(layout);
  }
};

using Key = std::tuple<int32_t, int, int64_t, int64_t, int64_t, int>;  // y_dtype, t, ldx, ldw, ldy, n

struct Blas {
  void* library = nullptr;
  Opaque handle = nullptr;
  Functions f{};
  void* workspace = nullptr;
  std::map<Key, std::unique_ptr<Product>> products;
};

}  // namespace

#ifdef PS_EMULATION
void open_cublaslt(Context&) {}
#else
static void* open_library() {
  const char* own = getenv("PS_CUBLASLT");
  for (const char* name : {own ? own : "", "libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so"})
    if (void* library = *name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr) return library;
  return nullptr;
}

void open_cublaslt(Context& ctx) {
  auto blas = std::make_unique<Blas>();
  blas->library = open_library();
  if (!blas->library) return;
  bool complete = true;
  auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(blas->library, name));
    complete = complete && function;
  };
  Functions& f = blas->f;
  find(f.create, "cublasLtCreate");
  find(f.destroy, "cublasLtDestroy");
  find(f.desc_create, "cublasLtMatmulDescCreate");
  find(f.desc_set, "cublasLtMatmulDescSetAttribute");
  find(f.desc_destroy, "cublasLtMatmulDescDestroy");
  find(f.layout_create, "cublasLtMatrixLayoutCreate");
  find(f.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(f.preference_create, "cublasLtMatmulPreferenceCreate");
  find(f.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(f.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(f.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(f.matmul, "cublasLtMatmul");
  if (!complete || f.create(&blas->handle) != 0) {
    dlclose(blas->library);
    return;
  }
  blas->workspace = ctx.allocate(kWorkspace);
  ctx.blas = blas.release();
}
#endif

void close_cublaslt(Context& ctx) {
  Blas* blas = static_cast<Blas*>(ctx.blas);
  if (!blas) return;
  blas->products.clear();
  blas->f.destroy(blas->handle);
  delete blas;
  ctx.blas = nullptr;
}

/* Its matrices are column-major: y^T [n, t] = W [k, n]^T x^T [k, t]. */
static void prepare(Blas& blas, Product& p, int y_type, int64_t ldy, int64_t ldx, const Weight& w, int t) {
  const Functions& f = blas.f;
  Opaque preference = nullptr;
  int count = 0;
  const bool made = f.desc_create(&p.desc, kCompute32F, kF32) == 0 &&
                    f.desc_set(p.desc, kTransposeA, &kTransposed, sizeof kTransposed) == 0 &&
                    f.layout_create(&p.w, kBf16, w.ld, w.n, w.ld) == 0 && f.layout_create(&p.x, kBf16, w.ld, t, ldx) == 0 &&
                    f.layout_create(&p.y, y_type, w.n, t, ldy) == 0 && f.preference_create(&preference) == 0 &&
                    f.preference_set(preference, kMaxWorkspace, &kWorkspace, sizeof kWorkspace) == 0;
  p.found = made && f.heuristic(blas.handle, p.desc, p.w, p.x, p.y, p.y, preference, 1, &p.choice, &count) == 0 && count > 0;
  if (preference) f.preference_destroy(preference);
}

template <class Y>
__global__ void add_bias(Y* y, int64_t ldy, const float* bias, int n) {
  Y* row = y + blockIdx.x * ldy;
  for (int i = threadIdx.x; i < n; i += blockDim.x) row[i] = from_float<Y>(to_float(row[i]) + bias[i]);
}

bool multiply_cublaslt(Context& ctx, void* y, int32_t y_dtype, int64_t ldy, const Bf16* x, int64_t ldx, const Weight& w,
                       const float* bias, int t) {
  Blas& blas = *static_cast<Blas*>(ctx.blas);
  std::unique_ptr<Product>& p = blas.products[{y_dtype, t, ldx, w.ld, ldy, w.n}];
  if (!p) {
    p = std::make_unique<Product>(blas.f);
    prepare(blas, *p, y_dtype == PS_F32 ? kF32 : kBf16, ldy, ldx, w, t);
  }
  if (!p->found) return false;
  const float one = 1, zero = 0;
  const int status = blas.f.matmul(blas.handle, p->desc, &one, w.data, p->w, x, p->x, &zero, y, p->y, y, p->y,
                                   &p->choice.algorithm, blas.workspace, kWorkspace, ctx.stream);
  if (status != 0) throw Error(PS_E_DRIVER, "cublasLtMatmul gave status %d for [%d, %d] x [%d]", status, w.n, w.k, t);
  if (bias && y_dtype == PS_F32) launch(ctx, add_bias<float>, t, 256, 0, static_cast<float*>(y), ldy, bias, w.n);
  if (bias && y_dtype == PS_BF16) launch(ctx, add_bias<Bf16>, t, 256, 0, static_cast<Bf16*>(y), ldy, bias, w.n);
  return true;
}
