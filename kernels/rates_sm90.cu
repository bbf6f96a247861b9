// How fast each multiprocessor reads global memory while all of them do.
//
// Preceded by sm90.cuh. Each program streams boxes of 64 rows by 128 columns through a ring in
// shared memory, as layer_chain does, for a given time.

constexpr int BOX = 64 * 256, SLOTS = 12;

extern "C" __global__ void __launch_bounds__(32, 1)
stream_rates(const __grid_constant__ TensorMap memory, int tiles, int steps, u64 nanoseconds,
             float* rates, int* programs) {
    extern __shared__ __align__(1024) unsigned char ring[];
    u64* full = (u64*)(ring + SLOTS * BOX);
    if (threadIdx.x) return;
    for (int i = 0; i < SLOTS; ++i) init(full[i], 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    fence_async();
    u64 begin, now;
    u32 issued = 0, arrived = 0, sm;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    asm volatile("mov.u32 %0, %smid;" : "=r"(sm));
    do {
        if (issued >= SLOTS) wait(full[arrived % SLOTS], arrived / SLOTS & 1), ++arrived;
        const u32 tile = (blockIdx.x + issued / steps * gridDim.x) % tiles, slot = issued % SLOTS;
        expect(full[slot], BOX);
        load_3d(shared_address(ring) + slot * BOX, memory, 0, tile * 64, issued % steps * 2,
                full[slot]);
        ++issued;
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - begin < nanoseconds);
    // Bytes a nanosecond. What is still under way is left out, and waited for.
    if (sm < gridDim.x) {
        rates[sm] = (float)arrived * BOX / (float)(now - begin);
        atomicAdd(programs + sm, 1);
    }
    for (; arrived < issued; ++arrived) wait(full[arrived % SLOTS], arrived / SLOTS & 1);
}
