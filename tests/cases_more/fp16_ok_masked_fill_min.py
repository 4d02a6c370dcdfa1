# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_masked_fill_min', tier='none', verdict='PASS', culprit_op=None,
 expect='masked_fill with the least float32, no row fully masked')
class M(nn.Module):
    def forward(self, x, m):
        return torch.softmax(x.masked_fill(m > 0.5, torch.finfo(torch.float32).min), -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); m = torch.zeros(2, 8); m[:, 5:] = 1; return (torch.randn(2, 8) * 3, m)
