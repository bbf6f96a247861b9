// Rotation of queries and keys: what the first warp group of one-copy attention does.
//
// A thread takes 8 of the 64 pairs of every sixteenth row. Angles come from the table once per item
// and every RESYNC tiles; in between they are advanced by 16 positions at a time.

// Rotates 8 pairs; w0, w1 multiply the two halves first.
__device__ __forceinline__ void turn(uint4& a, uint4& b, const float (&c)[8], const float (&s)[8],
                                     const float (&w0)[8], const float (&w1)[8]) {
    u32* x = &a.x;
    u32* y = &b.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float x0 = low(x[i]) * w0[2 * i], x1 = high(x[i]) * w0[2 * i + 1];
        const float y0 = low(y[i]) * w1[2 * i], y1 = high(y[i]) * w1[2 * i + 1];
        x[i] = pack(x0 * c[2 * i] - y0 * s[2 * i], x1 * c[2 * i + 1] - y1 * s[2 * i + 1]);
        y[i] = pack(y0 * c[2 * i] + x0 * s[2 * i], y1 * c[2 * i + 1] + x1 * s[2 * i + 1]);
    }
}

__device__ __forceinline__ void angles(const Work& work, int position, int unit, float (&c)[8],
                                       float (&s)[8]) {
    const u64 at = (u64)min(position, work.positions - 1) * PAIRS + unit * 8;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        const float4 x = __ldg((const float4*)(work.cos + at + i));
        const float4 y = __ldg((const float4*)(work.sin + at + i));
        c[i] = x.x, c[i + 1] = x.y, c[i + 2] = x.z, c[i + 3] = x.w;
        s[i] = y.x, s[i + 1] = y.y, s[i + 2] = y.z, s[i + 3] = y.w;
    }
}

// Asks for what ``angles`` will read.
__device__ __forceinline__ void ask(const Work& work, int position, int unit) {
    const u64 at = (u64)min(position, work.positions - 1) * PAIRS + unit * 8;
    fetch_l2(work.cos + at);
    fetch_l2(work.sin + at);
}

__device__ __forceinline__ void advance(float (&c)[8], float (&s)[8], const float (&step_c)[8],
                                        const float (&step_s)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float next = c[i] * step_c[i] - s[i] * step_s[i];
        s[i] = s[i] * step_c[i] + c[i] * step_s[i];
        c[i] = next;
    }
}

// Queries of an item: loaded by warp 0 when the scores need the last ones no more, rotated by all.
__device__ __forceinline__ void feed_queries(Rest& rest, const Work& work, const Item& item,
                                             const TensorMap& queries, u32 base, int number) {
    const int unit = threadIdx.x % 8;
    if (threadIdx.x < 32) {
        wait(rest.unused, (number & 1) ^ 1);
        if (threadIdx.x == 0) {
            expect(rest.query, 64 * D * 2);
            load_4d(base + QUERY, queries, 0, item.head * G, item.begin, 0, rest.query);
        }
    }
    const float one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float c[8], s[8], step_c[8], step_s[8];
    int row = threadIdx.x / 8;
    angles(work, item.position + row / G, unit, c, s);
    angles(work, 16 / G, unit, step_c, step_s);
    wait(rest.query, number & 1);
    for (; row < 64; row += 16) {
        const u32 at = base + QUERY + row * 128 + ((unit ^ (row & 7)) << 4);
        uint4 a = load_shared(at), b = load_shared(at + 4 * BLOCK);
        turn(a, b, c, s, one, one);
        store_shared(at, a);
        store_shared(at + 4 * BLOCK, b);
        advance(c, s, step_c, step_s);
    }
    fence_async();
    arrive(rest.turned);
}

// Tiles between two looks at the table of angles; in between they are multiplied on.
constexpr int RESYNC = 64;

__device__ __forceinline__ void feed(Rest& rest, const Work& work, const TensorMap& queries,
                                     u32 base) {
    const int unit8 = threadIdx.x % 8, first = threadIdx.x / 8;  // rows first, first + 16, ...
    float w0[8], w1[8], step_c[8], step_s[8], c[8], s[8];
    if (work.first < work.last) {
        const Item item = item_of(rest, work, work.first);
        ask(work, item.k_begin + first, unit8);
        ask(work, item.position + first / G, unit8);
    }
    angles(work, 16, unit8, step_c, step_s);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        w0[i] = widen(work.key_weight[unit8 * 8 + i]);
        w1[i] = widen(work.key_weight[D / 2 + unit8 * 8 + i]);
    }
    int number = 0, fresh = 0;
    for (int unit = work.first; unit < work.last; unit += work.step) {
        const Item item = item_of(rest, work, unit);
        if (item.fresh) feed_queries(rest, work, item, queries, base, fresh++);
        for (int tile = 0; tile < item.tiles; ++tile, ++number) {
            const int k0 = item.k_begin + tile * TILE, slot = number % 2;
            const u32 keys = base + KEYS + slot * TILE_BYTES;
            if (tile % RESYNC == 0) angles(work, k0 + first, unit8, c, s);
            if (tile == 0 && work.split) ask(work, k0 + rest.split[item.sequence] + first, unit8);
            wait(rest.full[slot][0], number / 2 & 1);
            wait(rest.full[slot][1], number / 2 & 1);
            const u32 at = first * 128 + ((unit8 ^ (first & 7)) << 4);
            uint4 a[4], b[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                a[r] = load_shared(keys + at + r * 2048);
                b[r] = load_shared(keys + 4 * BLOCK + at + r * 2048);
            }
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                turn(a[r], b[r], c, s, w0, w1);
                advance(c, s, step_c, step_s);  // 16 positions on
            }
            // Only now: the scores of the tile before may still read the rotated keys.
            wait(rest.unrotated, (number & 1) ^ 1);
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                store_shared(base + ROTATED + at + r * 2048, a[r]);
                store_shared(base + ROTATED + BLOCK + at + r * 2048, b[r]);
            }
            // Beyond the last key lies what nobody wrote: as values it must be finite.
            if (k0 + TILE > item.length) {
                sync_group(3);  // all have read their rows
                for (int i = (item.length - k0) * 64 + threadIdx.x; i < TILE * 64; i += 128)
                    store_shared(keys + (i / 8 % 8) * BLOCK + i / 64 * 128 + i % 8 * 16,
                                 make_uint4(0, 0, 0, 0));
            }
            fence_async();
            arrive(rest.rotated);
        }
    }
}
