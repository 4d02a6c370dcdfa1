# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_cumsum_of_ones', tier='narrow', verdict='WARN', culprit_op=['cumsum'],
 source_url='https://github.com/apple/coremltools/issues/2729',
 expect='a count by cumsum beyond 2,048: whole numbers are skipped')
class M(nn.Module):
    def forward(self, x): return torch.cumsum((x > 0).float(), -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 4000) + 0.1,)
