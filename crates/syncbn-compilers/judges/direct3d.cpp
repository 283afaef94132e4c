// The compilers of Direct3D 12, called as wgpu-hal 30 calls them: what they say of every job of a list. For wine.
//     direct3d.exe fxc|dxc FOLDER FIRST STEP      every STEP-th job of FOLDER/fxc.jobs or FOLDER/dxc.jobs from FIRST on
// d3dcompiler_47.dll and dxcompiler.dll lie beside the program.
#include <windows.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace {

// Nothing of Microsoft's headers for DXC comes with mingw: what is called of its interfaces, in the order of their tables.
struct Blob : IUnknown {
    virtual void* STDMETHODCALLTYPE GetBufferPointer() = 0;
    virtual SIZE_T STDMETHODCALLTYPE GetBufferSize() = 0;
};
struct Utf8 : Blob {
    virtual HRESULT STDMETHODCALLTYPE GetEncoding(BOOL*, UINT32*) = 0;
    virtual const char* STDMETHODCALLTYPE GetStringPointer() = 0;
    virtual SIZE_T STDMETHODCALLTYPE GetStringLength() = 0;
};
struct Source {
    const void* text;
    SIZE_T bytes;
    UINT encoding;
};
struct Outcome : IUnknown {
    virtual HRESULT STDMETHODCALLTYPE GetStatus(HRESULT*) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetResult(Blob**) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetErrorBuffer(Blob**) = 0;
    virtual BOOL STDMETHODCALLTYPE HasOutput(int) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetOutput(int, REFIID, void**, void**) = 0;
};
struct Compiler : IUnknown {
    virtual HRESULT STDMETHODCALLTYPE Compile(const Source*, const wchar_t**, UINT32, void*, REFIID, void**) = 0;
};

const GUID compiler_class{0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
const GUID compiler_id{0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
const GUID outcome_id{0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};
const GUID blob_id{0x8ba5fb08, 0x5195, 0x40e2, {0xac, 0x58, 0x0d, 0x98, 0x9c, 0x3a, 0x01, 0x02}};
const GUID utf8_id{0x3da636c9, 0xba71, 0x4024, {0xa3, 0x01, 0x30, 0xcb, 0xf1, 0x25, 0x30, 0x5b}};

constexpr int output_object = 1;
constexpr int output_errors = 2;
constexpr UINT utf8_code_page = 65001;
constexpr UINT enable_strictness = 1 << 11;

using CreateInstance = HRESULT(WINAPI*)(REFIID, REFIID, void**);
using D3DCompile = HRESULT(WINAPI*)(const void*, SIZE_T, const char*, const void*, void*, const char*, const char*, UINT,
                                    UINT, Blob**, Blob**);

struct Job {
    std::string name, profile, entry, file, flags;
};

std::string code_of(HRESULT code) {
    char text[16];
    std::snprintf(text, sizeof text, "%08lx", static_cast<unsigned long>(code));
    return text;
}

std::wstring wide(const std::string& text) { return {text.begin(), text.end()}; }

// Both answer with what is wrong, or with nothing.
std::string ask_fxc(D3DCompile compile, const Job& job, const std::string& text) {
    Blob* object = nullptr;
    Blob* errors = nullptr;
    const HRESULT code = compile(text.data(), text.size(), nullptr, nullptr, nullptr, job.entry.c_str(),
                                 job.profile.c_str(), enable_strictness, 0, &object, &errors);
    std::string found;
    if (FAILED(code)) {
        found = code_of(code) + " ";
        if (errors) found.append(static_cast<const char*>(errors->GetBufferPointer()), errors->GetBufferSize());
    } else if (!object || object->GetBufferSize() == 0) {
        found = "no object";
    }
    if (object) object->Release();
    if (errors) errors->Release();
    return found;
}

std::string ask_dxc(Compiler* compiler, const Job& job, const std::string& text) {
    const std::wstring entry = wide(job.entry);
    const std::wstring profile = wide(job.profile);
    std::vector<const wchar_t*> arguments = {L"-E",  entry.c_str(), L"-T",           profile.c_str(),
                                             L"-HV", L"2018",       L"-no-warnings", L"-Ges"};
    if (job.flags == "16") arguments.push_back(L"-enable-16bit-types");
    const Source source{text.data(), text.size(), utf8_code_page};
    Outcome* outcome = nullptr;
    HRESULT code = compiler->Compile(&source, arguments.data(), static_cast<UINT32>(arguments.size()), nullptr, outcome_id,
                                     reinterpret_cast<void**>(&outcome));
    if (FAILED(code) || !outcome) return code_of(code);
    std::string found;
    Utf8* errors = nullptr;
    Blob* object = nullptr;
    outcome->GetOutput(output_errors, utf8_id, reinterpret_cast<void**>(&errors), nullptr);
    outcome->GetOutput(output_object, blob_id, reinterpret_cast<void**>(&object), nullptr);
    outcome->GetStatus(&code);
    // As in wgpu-hal, any message is a failure.
    if (errors) found.assign(errors->GetStringPointer(), errors->GetStringLength());
    if (found.empty() && FAILED(code)) found = code_of(code);
    if (found.empty() && (!object || object->GetBufferSize() == 0)) found = "no object";
    if (object) object->Release();
    if (errors) errors->Release();
    outcome->Release();
    return found;
}

FARPROC symbol(const char* library, const char* name) {
    const HMODULE loaded = LoadLibraryA(library);
    const FARPROC found = loaded ? GetProcAddress(loaded, name) : nullptr;
    if (!found) {
        std::fprintf(stderr, "%s has no %s: error %lu\n", library, name, GetLastError());
        std::exit(1);
    }
    return found;
}

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<Job> read_jobs(const std::string& path) {
    std::ifstream file(path);
    std::vector<Job> jobs;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        Job job;
        words >> job.name >> job.profile >> job.entry >> job.file >> job.flags;
        jobs.push_back(job);
    }
    return jobs;
}

}  // namespace

int main(int count, char** words) {
    if (count != 5) {
        std::fprintf(stderr, "usage: direct3d.exe fxc|dxc FOLDER FIRST STEP\n");
        return 2;
    }
    const std::string judge = words[1];
    const std::string folder = words[2];
    const size_t first = std::strtoul(words[3], nullptr, 10);
    const size_t step = std::strtoul(words[4], nullptr, 10);
    D3DCompile fxc = nullptr;
    Compiler* dxc = nullptr;
    if (judge == "fxc") {
        fxc = reinterpret_cast<D3DCompile>(symbol("d3dcompiler_47.dll", "D3DCompile"));
    } else {
        const auto create = reinterpret_cast<CreateInstance>(symbol("dxcompiler.dll", "DxcCreateInstance"));
        const HRESULT code = create(compiler_class, compiler_id, reinterpret_cast<void**>(&dxc));
        if (FAILED(code)) {
            std::fprintf(stderr, "dxcompiler.dll makes no compiler: %s\n", code_of(code).c_str());
            return 1;
        }
    }
    const std::vector<Job> jobs = read_jobs(folder + "/" + judge + ".jobs");
    for (size_t at = first; at < jobs.size(); at += step) {
        const Job& job = jobs[at];
        const std::string text = contents(folder + "/" + job.file);
        std::string found = "there is no text";
        if (!text.empty()) found = fxc ? ask_fxc(fxc, job, text) : ask_dxc(dxc, job, text);
        for (char& letter : found) {
            if (letter == '\n' || letter == '\r' || letter == '\t' || letter == '\0') letter = ' ';
        }
        if (found.empty()) {
            std::printf("pass\t%s\n", job.name.c_str());
        } else {
            std::printf("fail\t%s\t%.600s\n", job.name.c_str(), found.c_str());
        }
        std::fflush(stdout);
    }
    return 0;
}
