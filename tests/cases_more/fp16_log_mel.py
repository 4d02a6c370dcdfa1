# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_log_mel', tier='wide', verdict='FAIL', culprit_op=['matmul', 'add', 'log', 'linear', 'mul', 'pow', 'square', 'conv'],
 source_url='https://github.com/apple/coremltools/issues/2110',
 expect="a mel spectrum of quiet audio below float16's least value")
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.register_buffer("mel", torch.rand(33, 16) * 0.02)
    def forward(self, s): return torch.log(torch.matmul(s.pow(2), self.mel) + 1e-10)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.rand(1, 8, 33) * torch.logspace(-5, 0, 8)[None, :, None],)
