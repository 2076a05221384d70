// The ops of the GPU, in the order of pagestream.h.
#include "ops.h"

namespace PS_ISA {
extern const Ops ops;
const Ops ops = table;
}  // namespace PS_ISA
