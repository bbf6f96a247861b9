// How the work of one-copy attention is cut into items, and what its warp groups share.
//
// Defined at compile time: HQ, HK (heads), PS (page size, a power of two >= 64), KEY_WEIGHT (the
// type of the key weight).

constexpr int G = HQ / HK, D = 512, PAIRS = 64, TILE = 64, MAX_SEQUENCES = 64, TOKENS = 64 / G;
constexpr int BLOCK = 8192, TILE_BYTES = 8 * BLOCK;  // 64 rows of 64 dimensions; of all dimensions
constexpr int QUERY = 0, KEYS = 65536, ROTATED = 196608, WEIGHTS = 212992, REST = 229376;

struct Rest {
    // Each barrier is one u64; what completes a phase stands beside it.
    u64 full[2][2];             // half tile loaded (bytes)
    u64 rotated, unrotated;     // rotated keys written (128 threads); read (4 warps)
    u64 query, turned, unused;  // queries loaded (bytes); rotated (128 threads); read (4 warps)
    u64 weights[2], free[2];    // weights written (128 threads); read (2 groups)
    float decay[2][64], total[2][64];
    int end[MAX_SEQUENCES], length[MAX_SEQUENCES], begin[MAX_SEQUENCES], count[MAX_SEQUENCES];
    int split[MAX_SEQUENCES];  // tokens per split
};
static_assert(sizeof(Rest) <= 3072, "shared memory");

struct Item {
    int id, sequence, head, length;
    int begin, live, position;  // first row of q, tokens that exist, position of the first
    int k_begin, tiles;
    bool fresh, final;  // the first and the last item in a row with the same queries
};

struct Work {
    const int* table;
    int table_stride, q_len, split;
    int first, last, step;  // this program's items
    float scale;
    const float *cos, *sin;
    int positions;
    const KEY_WEIGHT* key_weight;
    bf16* out;
    float *part, *stats;
};

// Which rows and keys unit number `unit` stands for.
//
// Splits of one sequence and head follow each other, and a program takes them in a row: it keeps
// their queries. An item's results lie where ``splits`` looks for them.
__device__ __forceinline__ Item item_of(const Rest& rest, const Work& work, int unit) {
    Item item;
    int s = 0;
    while (rest.end[s] * HK <= unit) ++s;
    const int before = s ? rest.end[s - 1] : 0, count = rest.end[s] - before;
    const int at = unit - before * HK;
    item.sequence = s;
    item.length = rest.length[s];
    int k_end;
    if (work.split) {
        const int split = at % count;
        item.head = at / count;
        item.id = (before + split) * HK + item.head;
        item.begin = s * work.q_len;
        item.live = work.q_len;
        item.position = item.length - work.q_len;
        item.k_begin = split * rest.split[s];
        item.fresh = split == 0 || unit == work.first;
        item.final = split == count - 1 || unit == work.last - 1;
        k_end = min(item.length, item.k_begin + rest.split[s]);
    } else {
        // The last tokens see the most keys: they go first, so that the launch ends evenly.
        const int token = (count - 1 - at / HK) * TOKENS;
        item.head = at % HK;
        item.id = unit;
        item.begin = rest.begin[s] + token;
        item.live = min(TOKENS, rest.count[s] - token);
        item.position = item.length - rest.count[s] + token;
        item.k_begin = 0;
        item.fresh = item.final = true;
        k_end = min(item.length, item.position + TOKENS);
    }
    item.tiles = (k_end - item.k_begin + TILE - 1) / TILE;
    return item;
}
