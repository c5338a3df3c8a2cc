// One pass over memory for each fake quantizer and each of its gradients: what plain operators need four to eight for.
//
// Values lie in memory as [rows][period][inner]; parameter p of `period` serves values of the middle index p. Elementwise
// results are those of the formulas in fused.py, bit for bit: fp32, one rounding per operation. Sums over values run in
// eight fp32 lanes over blocks of at most 4096 values a lane and then in double, in an order that depends on the shape
// alone. No standard headers, so that nothing compiled for a feature leaks into other code.

typedef int int32;
typedef unsigned uint32;
typedef long long int64;

typedef float F __attribute__((vector_size(32)));
typedef int32 I __attribute__((vector_size(32)));
typedef uint32 U __attribute__((vector_size(32)));
constexpr int64 LANES = 8;
constexpr int64 BLOCK = 4096;  // vectors or rows that are added in fp32

namespace {

inline F load(const float *p) {
    F v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline F load(const float *p, int64 n) {
    if (n == LANES) return load(p);
    F v = {};
    for (int64 i = 0; i < n; ++i) v[i] = p[i];
    return v;
}
inline void store(float *p, F v, int64 n) {
    if (n == LANES)
        __builtin_memcpy(p, &v, sizeof v);
    else
        for (int64 i = 0; i < n; ++i) p[i] = v[i];
}
inline F all(float x) { return F{} + x; }
inline F least(F a, F b) { return b < a ? b : a; }      // a NaN in `a` stays
inline F greatest(F a, F b) { return b > a ? b : a; }
inline F where(I mask, F v) { return (F)((I)v & mask); }  // else +0
inline double sum(F v) {
    double total = 0;
    for (int i = 0; i < LANES; ++i) total += v[i];
    return total;
}

// Uniform in -1..1, a multiple of 2^-23: a hash of the place and the key (the finaliser of MurmurHash3).
inline F uniform(int64 place, int64 key) {
    U h = U{0, 1, 2, 3, 4, 5, 6, 7} + ((uint32)place + (uint32)key);
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= (uint32)((unsigned long long)key >> 32);
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    h ^= h >> 16;
    return __builtin_convertvector((I)(h >> 8), F) * 0x1p-23f - 1.0f;
}

// Half to even, for |x| < 2^22 (codes are clamped before they are rounded).
inline F rint(F x) { return (x + 12582912.0f) - 12582912.0f; }

// A parameter as a vector: one number for a whole run, or one number per value.
template <bool PER_VALUE> inline F parameter(const float *p, int64 index, int64 at, int64 n) {
    return PER_VALUE ? load(p + at, n) : all(p[index]);
}

// Calls body(place of the first value, parameter index, place in the run, count) for every vector, run by run.
template <typename Body> inline void vectors(int64 base, int64 index, int64 length, const Body &body) {
    int64 at = 0;
    for (; at + LANES <= length; at += LANES) body(base + at, index, at, LANES);
    if (at < length) body(base + at, index, at, length - at);
}

struct Layout {
    int64 rows, period, inner;
};

template <typename Body> void forward(Layout s, const Body &body) {
    if (s.inner == 1) {
        for (int64 row = 0; row < s.rows; ++row)
            vectors(row * s.period, 0, s.period, [&](auto... a) { body.template operator()<true>(a...); });
        return;
    }
    for (int64 run = 0; run < s.rows * s.period; ++run)
        vectors(run * s.inner, run % s.period, s.inner, [&](auto... a) { body.template operator()<false>(a...); });
}

// As forward; body adds to its last argument, N sums per parameter, which end in totals[N][period].
template <int N, typename Body> void backward(Layout s, double *totals, const Body &body) {
    if (s.inner != 1) {
        for (int64 run = 0; run < s.rows * s.period; ++run)
            for (int64 start = 0; start < s.inner; start += BLOCK * LANES) {
                F sums[N] = {};
                const int64 left = s.inner - start, length = left < BLOCK * LANES ? left : BLOCK * LANES;
                vectors(run * s.inner + start, run % s.period, length,
                        [&](auto... a) { body.template operator()<false>(a..., sums); });
                for (int i = 0; i < N; ++i) totals[i * s.period + run % s.period] += sum(sums[i]);
            }
        return;
    }
    // Down the columns, a block of rows at a time: small enough to stay in the cache, so that lines are read once.
    const int64 fits = 4096 / (s.period < 4096 ? s.period : 4096);
    const int64 block = fits < 1 ? 1 : fits;
    for (int64 first = 0; first < s.rows; first += block) {
        const int64 last = first + block < s.rows ? first + block : s.rows;
        for (int64 at = 0; at < s.period; at += LANES) {
            const int64 n = s.period - at < LANES ? s.period - at : LANES;
            F sums[N] = {};
            for (int64 row = first; row < last; ++row)
                if (n == LANES)
                    body.template operator()<true>(row * s.period + at, 0, at, LANES, sums);
                else
                    body.template operator()<true>(row * s.period + at, 0, at, n, sums);
            for (int i = 0; i < N; ++i)
                for (int64 lane = 0; lane < n; ++lane) totals[i * s.period + at + lane] += sums[i][lane];
        }
    }
}

struct NoiseForward {
    const float *values, *half, *edge;
    float *out;
    bool is_signed;
    int64 key;
    template <bool P> inline void operator()(int64 place, int64 index, int64 at, int64 n) const {
        const F x = load(values + place, n), h = parameter<P>(half, index, at, n), top = parameter<P>(edge, index, at, n);
        const F low = is_signed ? -top : F{};
        const F y = greatest(least(x, top), low) + where((x > low) & (x < top), h * uniform(place, key));
        store(out + place, y, n);
    }
};

struct NoiseBackward {
    const float *gradient, *values, *edge;
    float *to_values;
    bool is_signed;
    int64 key;
    template <bool P> inline void operator()(int64 place, int64 index, int64 at, int64 n, F *sums) const {
        const F g = load(gradient + place, n), x = load(values + place, n), top = parameter<P>(edge, index, at, n);
        const F low = is_signed ? -top : F{};
        const F through = where((x > low) & (x < top), g);
        store(to_values + place, through, n);
        sums[0] += through * uniform(place, key);
        sums[1] += where(x >= top, g);
        if (is_signed) sums[1] -= where(x <= low, g);
    }
};

// `table`: multiplier, offset, lo and hi of the codes, each for all values (`one`) or for each parameter.
struct Grid {
    const float *step, *table;
    int64 period;
    bool one;
    template <bool P> inline F part(int k, int64 index, int64 at, int64 n) const {
        return one ? all(table[k]) : parameter<P>(table + k * period, index, at, n);
    }
    template <bool P> inline F rounded(F x, int64 index, int64 at, int64 n) const {
        const F alpha = parameter<P>(step, index, at, n), multiplier = part<P>(0, index, at, n);
        const F offset = part<P>(1, index, at, n);
        F code = x * (1.0f / (multiplier * alpha)) + offset / multiplier;
        code = rint(least(greatest(code, part<P>(2, index, at, n)), part<P>(3, index, at, n)));
        return (code * multiplier - offset) * alpha;
    }
    template <bool P> inline F top(int64 index, int64 at, int64 n) const {
        const F integer = part<P>(0, index, at, n) * part<P>(3, index, at, n) - part<P>(1, index, at, n);
        return parameter<P>(step, index, at, n) * integer;
    }
};

struct RoundForward {
    const float *values;
    float *out;
    Grid grid;
    template <bool P> inline void operator()(int64 place, int64 index, int64 at, int64 n) const {
        store(out + place, grid.rounded<P>(load(values + place, n), index, at, n), n);
    }
};

struct RoundBackward {
    const float *gradient, *values;
    float *to_values;
    Grid grid;
    bool is_signed;
    template <bool P> inline void operator()(int64 place, int64 index, int64 at, int64 n, F *sums) const {
        const F g = load(gradient + place, n), x = load(values + place, n), top = grid.top<P>(index, at, n);
        const F through = where((x > (is_signed ? -top : F{})) & (x < top), g);
        store(to_values + place, through, n);
        sums[0] += g * grid.rounded<P>(x, index, at, n) - through * x;
    }
};

}  // namespace

extern "C" {

void soniq_noise_forward(int64 rows, int64 period, int64 inner, const float *values, const float *half, const float *edge,
                         int64 is_signed, int64 key, float *out) {
    forward({rows, period, inner}, NoiseForward{values, half, edge, out, is_signed != 0, key});
}

// totals: double [2][period], zeroed: the gradients of half and edge.
void soniq_noise_backward(int64 rows, int64 period, int64 inner, const float *gradient, const float *values,
                          const float *edge, int64 is_signed, int64 key, float *to_values, double *totals) {
    backward<2>({rows, period, inner}, totals, NoiseBackward{gradient, values, edge, to_values, is_signed != 0, key});
}

// table: fp32 [4][table_period], table_period 1 or period.
void soniq_round_forward(int64 rows, int64 period, int64 inner, const float *values, const float *step, const float *table,
                         int64 table_period, float *out) {
    forward({rows, period, inner}, RoundForward{values, out, {step, table, period, table_period == 1}});
}

// totals: double [1][period], zeroed: the gradient of the step, times the step.
void soniq_round_backward(int64 rows, int64 period, int64 inner, const float *gradient, const float *values,
                          const float *step, const float *table, int64 table_period, int64 is_signed, float *to_values,
                          double *totals) {
    const Grid grid = {step, table, period, table_period == 1};
    backward<1>({rows, period, inner}, totals, RoundBackward{gradient, values, to_values, grid, is_signed != 0});
}

}  // extern "C"
