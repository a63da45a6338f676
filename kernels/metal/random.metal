// random: Philox4x32-10 (Salmon et al. 2011), four words a thread.
namespace gv {
struct RandomParameters {
    long seed, step, out;  // two words, one word
    long stream, count;
    long first;  // block of the first word
};
}  // namespace gv

GV_KERNEL(gv_random) {
    using namespace gv;
    constant RandomParameters& p = *(constant RandomParameters*)given;
    device const uint* seed = (device const uint*)(arena + p.seed);
    device uint* out = (device uint*)(arena + p.out);
    for (long block = GV_THREAD; 4 * block < p.count; block += GV_THREADS) {
        const ulong counter = ulong(p.first + block);
        uint c0 = uint(counter), c1 = uint(counter >> 32), c2 = uint(p.stream);
        uint c3 = *(device const uint*)(arena + p.step), k0 = seed[0], k1 = seed[1];
        for (int round = 0; round < 10; round++) {
            const uint high0 = mulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
            const uint high1 = mulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
            c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
            k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        }
        const uint words[4] = {c0, c1, c2, c3};
        for (int i = 0; i < 4 && 4 * block + i < p.count; i++) out[4 * block + i] = words[i];
    }
}
