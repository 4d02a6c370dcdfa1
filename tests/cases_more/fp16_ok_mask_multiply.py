# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_mask_multiply', tier='none', verdict='PASS', culprit_op=None,
 expect='a mask by product, and a mean over what is left')
class M(nn.Module):
    def forward(self, x, m): return (x * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1e-9)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); m = torch.ones(2, 16); m[:, 11:] = 0; return (torch.randn(2, 16, 8), m)
