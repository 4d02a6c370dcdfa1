# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_gaussian_pdf_product', tier='wide', verdict='FAIL', culprit_op=['add', 'exp', 'mul', 'reduce_prod', 'pow', 'log'],
 expect='a likelihood of many Gaussians is multiplied before its log')
class M(nn.Module):
    def forward(self, x):
        p = torch.exp(-0.5 * x * x) * 0.3989
        return torch.log(p[:, 0] * p[:, 1] * p[:, 2] * p[:, 3] + 1e-30)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(8, 4) * 2.5,)
